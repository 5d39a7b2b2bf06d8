//! The few calls of Kubo's RPC API that are needed
//! (<https://docs.ipfs.tech/reference/kubo/rpc/>): blocks and pins.
//!
//! Knows: how each is asked and what a sound answer is. Does not know: what blocks hold, when to ask.
//! Every answer is bounded; whoever calls bounds the time.

use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::BEHIND;
use crate::cid::Cid;
use crate::connect::{self, Connector};
use crate::error::{Error, Kind, Result};
use crate::token::Secret;

/// The largest block; older nodes take no more.
pub(super) const MAX_BLOCK_BYTES: usize = 1 << 20;

/// The largest answer that is no block: a list of all pins.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Between the parts of a body; sealed bytes hold it by no chance worth counting.
const BOUNDARY: &str = "octocache-4f2a9c8e7b1d6035";

/// A node.
#[derive(Debug)]
pub(super) struct Rpc {
    /// Made by the first call: certificates take a while to read.
    client: OnceLock<Client<Connector, connect::Body>>,
    is_plaintext: bool,
    base: String,
    authorization: Option<HeaderValue>,
}

#[derive(Deserialize)]
struct Put {
    #[serde(rename = "Key")]
    key: String,
}

#[derive(Deserialize)]
struct Pin {
    #[serde(rename = "Cid")]
    cid: String,
    #[serde(rename = "Name", default)]
    name: String,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "Message")]
    message: String,
}

impl Rpc {
    /// A node whose API is at `api`, with what it wants to see in `Authorization`.
    pub(super) fn new(api: &str, authorization: Option<&Secret>) -> Result<Self> {
        let bad = || {
            Error::usage("the address of the IPFS node's API cannot be read")
                .hint("it looks like http://127.0.0.1:5001")
        };
        let uri: Uri = api.parse().map_err(|_| bad())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
            return Err(bad());
        }
        let authorization = authorization.map(|secret| {
            let mut value = HeaderValue::try_from(secret.reveal())
                .map_err(|_| Error::usage("what the IPFS node's API wants to see cannot stand in a header"))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        });
        let base = api.trim_end_matches('/').to_owned();
        let is_plaintext = uri.scheme_str() == Some("http");
        Ok(Self { client: OnceLock::new(), is_plaintext, base, authorization: authorization.transpose()? })
    }

    fn client(&self) -> Result<&Client<Connector, connect::Body>> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let connector = if self.is_plaintext { connect::plain(BEHIND) } else { connect::tls(None, BEHIND)? };
        Ok(self.client.get_or_init(|| Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// Calls, and gives the answer's body. Only `POST` is answered.
    async fn call(&self, path: &str, content: Option<Bytes>, most: usize) -> Result<Bytes> {
        let failed = |cause: String| Error::new(Kind::Transport, format!("IPFS node: {cause}"));
        let mut request = Request::builder().method(Method::POST).uri(format!("{}/api/v0/{path}", self.base));
        if content.is_some() {
            request = request.header(CONTENT_TYPE, format!("multipart/form-data; boundary={BOUNDARY}"));
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let request = request
            .body(connect::body(Full::new(content.unwrap_or_default())))
            .map_err(|error| failed(error.to_string()))?;
        let response = self.client()?.request(request).await.map_err(|error| failed(error.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), most).collect().await;
        let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let why = serde_json::from_slice::<Problem>(&body).map_or_else(|_| status.to_string(), |one| one.message);
        Err(Error::new(Kind::Refused(status.as_u16()), format!("IPFS node: {why}")))
    }

    /// Puts a block; errors unless the node names it as we do.
    pub(super) async fn put(&self, block: &[u8]) -> Result<Cid> {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"data\"; filename=\"block\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let content = [head.as_bytes(), block, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat();
        let answer = self.call("block/put?cid-codec=raw&mhtype=sha2-256", Some(content.into()), 64 << 10).await?;
        let put: Put =
            serde_json::from_slice(&answer).map_err(|_| Error::corrupt("IPFS node: no answer to block/put"))?;
        let cid = Cid::of(block);
        if Cid::parse_any_base(&put.key) != Some(cid) {
            return Err(Error::corrupt("IPFS node: it names a block otherwise than we do"));
        }
        Ok(cid)
    }

    /// The block called so, which this node keeps; errors when what comes is another. Without `offline`, a
    /// node that does not have it would search the network for as long as somebody waits.
    pub(super) async fn get(&self, cid: &Cid) -> Result<Bytes> {
        let block = self.call(&format!("block/get?arg={cid}&offline=true"), None, MAX_BLOCK_BYTES).await?;
        if Cid::of(&block) != *cid {
            return Err(Error::corrupt("IPFS node: a block does not have its digest"));
        }
        Ok(block)
    }

    /// Keeps a block under a name.
    pub(super) async fn pin(&self, cid: &Cid, name: &str) -> Result<()> {
        self.call(&format!("pin/add?arg={cid}&recursive=false&name={name}"), None, 64 << 10).await.map(drop)
    }

    /// Lets a block go; one that is not kept is gone already.
    pub(super) async fn unpin(&self, cid: &Cid) -> Result<()> {
        match self.call(&format!("pin/rm?arg={cid}&recursive=false"), None, 64 << 10).await {
            Err(error) if error.to_string().contains("not pinned") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Everything that is kept under names that hold `part`. Lines that are no pins are passed over.
    pub(super) async fn pins(&self, part: &str) -> Result<Vec<(Cid, String)>> {
        let path = format!("pin/ls?type=direct&names=true&stream=true&name={part}");
        let answer = self.call(&path, None, MAX_ANSWER_BYTES).await?;
        let lines = answer.split(|byte| *byte == b'\n');
        let pins = lines.filter_map(|line| serde_json::from_slice::<Pin>(line).ok());
        Ok(pins.filter_map(|pin| Some((Cid::parse_any_base(&pin.cid)?, pin.name))).collect())
    }
}
