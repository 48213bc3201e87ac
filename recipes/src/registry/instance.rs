//! An instance of a service, as its znode has it.
//!
//! The JSON is that of Curator's `x-discovery` (`ServiceInstance`, `serviceType` `DYNAMIC`), so that
//! either finds the other's instances. Tags and metadata are in its `payload`, as an object; whatever
//! else a payload is stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::Error;
use crate::group::check_name;

/// One instance of a service.
///
/// ```
/// # use quorate_recipes::Instance;
/// let instance = Instance::new("billing", "billing-7")
///     .address("10.0.0.7")
///     .port(8080)
///     .tag("canary")
///     .metadata("weight", "3");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instance {
    /// The service it is an instance of.
    pub name: String,
    /// Its own name, which no other instance of the service has.
    pub id: String,
    /// Where it is found: a host name or an IP address.
    pub address: String,
    /// Its port.
    pub port: Option<u16>,
    /// Its port for TLS.
    pub ssl_port: Option<u16>,
    /// Whether it is to be selected: an operator may take it out of service without ending it.
    pub enabled: bool,
    /// When it was registered, in milliseconds since 1970, by its own clock.
    pub registered_ms: u64,
    /// Words by which it is found.
    pub tags: BTreeSet<String>,
    /// What else there is to know.
    pub metadata: BTreeMap<String, String>,
    /// The rest of what its znode says, kept when it is written again.
    rest: serde_json::Map<String, Value>,
}

impl Instance {
    /// An instance, that is in service.
    pub fn new(name: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            id: id.into(),
            address: String::new(),
            port: None,
            ssl_port: None,
            enabled: true,
            registered_ms: 0,
            tags: BTreeSet::new(),
            metadata: BTreeMap::new(),
            rest: serde_json::Map::new(),
        }
    }

    /// Where it is found.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self
    }

    /// Its port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Its port for TLS.
    #[must_use]
    pub fn ssl_port(mut self, port: u16) -> Self {
        self.ssl_port = Some(port);
        self
    }

    /// A word more by which it is found.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.insert(tag.into());
        self
    }

    /// Something else to know of it.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Whether it is to be selected.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// What another library keeps in its `payload`, if that is not tags and metadata.
    pub fn payload(&self) -> Option<&Value> {
        self.rest.get("payload")
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        check_name(&self.name, "the name of a service")?;
        check_name(&self.id, "the id of an instance")
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut object = self.rest.clone();
        let mut set = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
        set("name", json!(self.name));
        set("id", json!(self.id));
        set("address", json!(self.address));
        set("port", json!(self.port));
        set("sslPort", json!(self.ssl_port));
        set("registrationTimeUTC", json!(self.registered_ms));
        set("serviceType", json!("DYNAMIC"));
        set("enabled", json!(self.enabled));
        let is_told = !self.tags.is_empty() || !self.metadata.is_empty();
        if is_told || !object.contains_key("payload") {
            let told = json!({ "tags": self.tags, "metadata": self.metadata });
            object.insert(
                "payload".to_owned(),
                if is_told { told } else { Value::Null },
            );
        }
        object.entry("uriSpec").or_insert(Value::Null);
        Value::Object(object).to_string().into_bytes()
    }

    /// `None`: that is no instance.
    pub(super) fn from_json(data: &[u8]) -> Option<Self> {
        let mut rest: serde_json::Map<String, Value> = serde_json::from_slice(data).ok()?;
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            _ => None,
        };
        let port =
            |value: Option<Value>| value.and_then(|value| u16::try_from(value.as_u64()?).ok());
        let name = rest.remove("name").and_then(text)?;
        let id = rest.remove("id").and_then(text)?;
        let address = rest.remove("address").and_then(text).unwrap_or_default();
        let (plain, ssl) = (port(rest.remove("port")), port(rest.remove("sslPort")));
        let enabled = rest.remove("enabled").and_then(|value| value.as_bool());
        let registered = rest.remove("registrationTimeUTC");
        rest.remove("serviceType");
        let told = rest.get("payload").and_then(Told::read);
        if told.is_some() || rest.get("payload") == Some(&Value::Null) {
            rest.remove("payload");
        }
        let told = told.unwrap_or_default();
        if rest.get("uriSpec") == Some(&Value::Null) {
            rest.remove("uriSpec");
        }
        Some(Self {
            name,
            id,
            address,
            port: plain,
            ssl_port: ssl,
            // Older versions of Curator do not write it.
            enabled: enabled.unwrap_or(true),
            registered_ms: registered.and_then(|value| value.as_u64()).unwrap_or(0),
            tags: told.tags,
            metadata: told.metadata,
            rest,
        })
    }
}

/// A payload of ours.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    tags: BTreeSet<String>,
    metadata: BTreeMap<String, String>,
}

impl Told {
    fn read(payload: &Value) -> Option<Self> {
        serde::Deserialize::deserialize(payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_what_its_json_says() {
        let plain = Instance::new("billing", "7").address("10.0.0.7").port(80);
        let full = plain
            .clone()
            .ssl_port(443)
            .tag("canary")
            .metadata("weight", "3")
            .enabled(false);
        for instance in [Instance::new("a", "b"), plain, full] {
            let read = Instance::from_json(&instance.to_json());
            assert_eq!(read, Some(instance));
        }
    }

    #[test]
    fn an_instance_of_curator_is_read_and_what_we_do_not_know_is_kept() {
        let json = br#"{"name":"test","id":"2dfdf0e4","address":"10.20.30.40","port":1234,
            "sslPort":null,"payload":{"@class":"com.example.Details","description":"x"},
            "registrationTimeUTC":1325129459728,"serviceType":"DYNAMIC","enabled":true,
            "uriSpec":{"parts":[{"value":"http://","variable":false}]}}"#;
        let instance = Instance::from_json(json).unwrap();
        assert_eq!((instance.port, instance.ssl_port), (Some(1234), None));
        assert_eq!(instance.registered_ms, 1_325_129_459_728);
        assert!(instance.enabled && instance.metadata.is_empty());
        assert_eq!(instance.payload().unwrap()["description"], "x");
        let written: Value = serde_json::from_slice(&instance.to_json()).unwrap();
        let original: Value = serde_json::from_slice(json).unwrap();
        assert_eq!(written, original);
    }

    #[test]
    fn what_is_no_instance_is_none() {
        for data in [
            &b""[..],
            b"x",
            b"{}",
            b"[]",
            br#"{"name":"a"}"#,
            br#"{"name":1,"id":"b"}"#,
        ] {
            assert_eq!(Instance::from_json(data), None);
        }
        // Numbers that no port can have are none.
        let odd = br#"{"name":"a","id":"b","port":70000,"sslPort":-1,"enabled":"yes"}"#;
        let instance = Instance::from_json(odd).unwrap();
        assert_eq!(
            (instance.port, instance.ssl_port, instance.enabled),
            (None, None, true)
        );
    }
}
