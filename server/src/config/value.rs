//! Parsing of one value: text in, a bounded number, path, host or secret out.
//!
//! A reason quotes the value, escaped and cut; the parser of a secret does not.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::error::{ConfigError, Place, quotable};
use super::properties::Entry;
use super::secret::Secret;

pub(super) const I32_MAX: i64 = i32::MAX as i64;
/// Room for a connect request and a short path; a limit below shuts every client out.
const FRAME_BYTES_MIN: i64 = 1 << 10;
/// One request has to fit in memory many times over.
const FRAME_BYTES_MAX: i64 = 1 << 30;
pub(super) const BYTES_MAX: i64 = 1 << 50;

/// A value, and where to point when it does not go with another.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl Entry {
    pub(super) fn invalid(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError::Invalid {
            place: self.place.clone(),
            reason: reason.into(),
        }
    }

    pub(super) fn at<T>(&self, value: T) -> At<T> {
        At {
            value,
            place: self.place.clone(),
        }
    }

    pub(super) fn quoted(&self) -> String {
        format!("\"{}\"", quotable(&self.value))
    }

    pub(super) fn integer<T: TryFrom<i64>>(
        &self,
        range: RangeInclusive<i64>,
    ) -> Result<T, ConfigError> {
        let number: Option<i64> = self.value.parse().ok();
        number
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                self.invalid(format!(
                    "{} is not a whole number from {} to {}",
                    self.quoted(),
                    range.start(),
                    range.end()
                ))
            })
    }

    /// A bound that 0 and less take away, as in ZooKeeper.
    pub(super) fn bound(&self) -> Result<Option<NonZeroU32>, ConfigError> {
        let number: i64 = self.integer(i64::from(i32::MIN)..=I32_MAX)?;
        Ok(u32::try_from(number).ok().and_then(NonZeroU32::new))
    }

    /// As [`Entry::bound`], for sizes.
    pub(super) fn positive(&self) -> Result<Option<u64>, ConfigError> {
        let number: i64 = self.integer(-BYTES_MAX..=BYTES_MAX)?;
        Ok(u64::try_from(number).ok().filter(|number| *number > 0))
    }

    /// -1 stands for the default.
    pub(super) fn session_timeout(&self) -> Result<Option<At<u32>>, ConfigError> {
        if self.value == "-1" {
            return Ok(None);
        }
        Ok(Some(self.at(self.integer(1..=I32_MAX)?)))
    }

    /// Hours, or with ZooKeeper 3.10 a number with a unit. Only whether it is zero matters here.
    pub(super) fn interval(&self) -> Result<i64, ConfigError> {
        let number = self
            .value
            .trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &self.value[number.len()..];
        let known_unit = ["", "ms", "s", "m", "h", "d"].contains(&unit);
        number
            .parse()
            .ok()
            .filter(|_| known_unit)
            .ok_or_else(|| self.invalid(format!("{} is not a number of hours", self.quoted())))
    }

    /// ZooKeeper's documentation writes this one in hexadecimal: 0xfffff.
    pub(super) fn frame_bytes(&self) -> Result<u32, ConfigError> {
        let hexadecimal = self.value.strip_prefix("0x");
        let Some(digits) = hexadecimal.or_else(|| self.value.strip_prefix("0X")) else {
            return self.integer(FRAME_BYTES_MIN..=FRAME_BYTES_MAX);
        };
        let decimal = i64::from_str_radix(digits, 16)
            .map_err(|_| self.invalid(format!("{} is not a hexadecimal number", self.quoted())))?;
        let entry = Self {
            value: decimal.to_string(),
            ..self.clone()
        };
        entry.integer(FRAME_BYTES_MIN..=FRAME_BYTES_MAX)
    }

    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        match self.value.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.invalid(format!("{} is neither true nor false", self.quoted()))),
        }
    }

    /// `skipACL=true` does not skip ACLs in ZooKeeper; to guess either way would be unsafe.
    pub(super) fn yes_or_no(&self) -> Result<bool, ConfigError> {
        match self.value.as_str() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(self.invalid(format!("{} is neither yes nor no", self.quoted()))),
        }
    }

    pub(super) fn path(&self) -> Result<PathBuf, ConfigError> {
        if self.value.is_empty() {
            return Err(self.invalid("the path is empty"));
        }
        if self.value.contains('\0') {
            return Err(self.invalid(format!(
                "{} holds a zero byte, which no path can",
                self.quoted()
            )));
        }
        Ok(PathBuf::from(&self.value))
    }

    pub(super) fn host(&self) -> Result<At<String>, ConfigError> {
        let host = self.value.trim_matches(['[', ']']);
        if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(self.invalid(format!(
                "{} is neither an IP address nor a host name",
                self.quoted()
            )));
        }
        Ok(self.at(host.to_owned()))
    }

    /// In a file, ZooKeeper takes 0 for "not set", and would serve no one; a flag of 0 asks for
    /// any free port, as tests do.
    pub(super) fn client_port(&self) -> Result<At<u16>, ConfigError> {
        let lowest = match self.place {
            Place::Setting { .. } => 0,
            _ => 1,
        };
        Ok(self.at(self.integer(lowest..=i64::from(u16::MAX))?))
    }

    /// Its value stays out of every message.
    pub(super) fn super_digest(&self) -> Result<Secret, ConfigError> {
        let well_formed = self
            .value
            .split_once(':')
            .is_some_and(|(user, digest)| !user.is_empty() && !digest.is_empty());
        if !well_formed || self.value.chars().any(char::is_whitespace) {
            return Err(self.invalid(
                "expected user:base64(sha1(user:password)); ZooKeeper's DigestAuthenticationProvider \
                 prints it (the value is not shown here)",
            ));
        }
        Ok(Secret::new(self.value.clone()))
    }
}
