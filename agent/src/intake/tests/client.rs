//! A client that does exactly what a test says, byte for byte.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A TLS connection that speaks HTTP/1.1.
pub(in crate::intake) struct Connection {
    stream: TlsStream<TcpStream>,
}

/// A response.
#[derive(Debug)]
pub(in crate::intake) struct Answer {
    pub(in crate::intake) status: u16,
    pub(in crate::intake) headers: BTreeMap<String, String>,
    pub(in crate::intake) body: Vec<u8>,
}

impl Connection {
    pub(in crate::intake) async fn open(
        address: SocketAddr,
        config: ClientConfig,
    ) -> io::Result<Self> {
        Self::over(TcpStream::connect(address).await?, config).await
    }

    /// As [`Self::open`], from another address of this host.
    pub(in crate::intake) async fn open_from(
        source: [u8; 4],
        address: SocketAddr,
        config: ClientConfig,
    ) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        Self::over(socket.connect(address).await?, config).await
    }

    async fn over(stream: TcpStream, config: ClientConfig) -> io::Result<Self> {
        let name = ServerName::try_from("localhost").expect("name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(Self { stream })
    }

    pub(in crate::intake) async fn send(&mut self, bytes: &str) -> io::Result<()> {
        self.stream.write_all(bytes.as_bytes()).await?;
        self.stream.flush().await
    }

    pub(in crate::intake) async fn ask(&mut self, request: &str) -> Answer {
        // A server that has answered already may not read to the end.
        let _ = self.send(request).await;
        self.answer().await.expect("an answer")
    }

    /// Reads one response; an error if the connection ends before it does.
    pub(in crate::intake) async fn answer(&mut self) -> io::Result<Answer> {
        timeout(PATIENCE, self.read_answer()).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn read_answer(&mut self) -> io::Result<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await?);
        }
        let head = String::from_utf8(head).expect("text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().expect("status line").split(' ').nth(1).expect("status");
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.get("content-length").map_or(0, |l| l.parse().expect("length"));
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(Answer { status: status.parse().expect("number"), headers, body })
    }

    /// Waits until the server closes; what it said before that.
    pub(in crate::intake) async fn closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest))
            .await
            .expect("the server never closes");
        rest
    }

    /// Session tickets that the server gave.
    pub(in crate::intake) fn tickets(&self) -> u32 {
        self.stream.get_ref().1.tls13_tickets_received()
    }
}

impl Answer {
    pub(in crate::intake) fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The body, checked to be a problem (RFC 9457) that agrees with the response.
    pub(in crate::intake) fn problem(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert_eq!(self.headers["cache-control"], "no-store");
        let problem: Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(problem["status"], self.status, "{problem}");
        let reason = problem["reason"].as_str().expect("reason");
        assert_eq!(problem["type"], format!("urn:grantd:reason:{reason}"));
        for member in ["title", "detail", "instance"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        problem
    }
}
