//! Several reads in one request.

use bytes::Bytes;
use quorate_protocol::multi::{MultiResult, ReadOp};
use quorate_protocol::request::Watched;
use quorate_protocol::{OpCode, Request, Response, Stat};

use crate::client::Client;
use crate::error::{Error, Reason, Target};
use crate::operation::{Policy, Prepare, Prepared, absolute, operation};
use crate::session::line::Answer;

/// Several reads, answered together from one moment. See [`Client::read_many`].
///
/// Servers of Apache ZooKeeper know it from 3.6 on.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `.send()` or `.await`"]
pub struct ReadMany {
    client: Client,
    reads: Vec<(bool, String)>,
    policy: Policy,
}

/// What one read has found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Read {
    /// Of a `get`.
    Data(Bytes, Stat),
    /// Of a `children`.
    Children(Vec<String>),
    /// Why this one found nothing; the others are not affected.
    Failed(Reason),
}

impl ReadMany {
    pub(crate) fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            reads: Vec::new(),
            policy: Policy::default(),
        }
    }

    /// Reads a znode's data.
    pub fn get(mut self, path: &str) -> Self {
        self.reads.push((false, path.to_owned()));
        self
    }

    /// Reads the names of a znode's children.
    pub fn children(mut self, path: &str) -> Self {
        self.reads.push((true, path.to_owned()));
        self
    }
}

impl Prepare for ReadMany {
    type Output = Vec<Read>;

    fn prepare(&self, client: &Client) -> Result<Prepared, Error> {
        let reads = self.reads.iter().enumerate();
        let reads = reads.map(|(index, (is_children, path))| {
            let word = if *is_children { "children" } else { "get" };
            let target = Target::read(word, path).at(index);
            let watched = Watched {
                path: absolute(client, &target, path)?,
                watch: false,
            };
            Ok(if *is_children {
                ReadOp::GetChildren(watched)
            } else {
                ReadOp::GetData(watched)
            })
        });
        Ok(Prepared {
            request: Request::MultiRead(reads.collect::<Result<_, Error>>()?),
            target: Target::read("read many", ""),
            interest: None,
        })
    }

    fn decode(answer: Answer, _: &Client) -> Result<Vec<Read>, String> {
        let response = Response::decode(OpCode::MultiRead, &answer.body);
        let Response::Multi(results) = response.map_err(|error| error.to_string())? else {
            return Err("it is no list of results".to_owned());
        };
        let results = results.into_iter().map(|result| {
            Ok(match result {
                MultiResult::GetData { data, stat } => {
                    let data = data.map(std::borrow::Cow::into_owned);
                    Read::Data(data.unwrap_or_default().into(), stat)
                }
                MultiResult::GetChildren { children } => Read::Children(
                    children
                        .into_iter()
                        .map(std::borrow::Cow::into_owned)
                        .collect(),
                ),
                MultiResult::Error(code) => {
                    Read::Failed(code.map_or(Reason::RolledBack, |c| Reason::from_code(c.code())))
                }
                other => return Err(format!("{other:?} among reads")),
            })
        });
        results.collect()
    }
}

operation!(ReadMany, Vec<Read>);
