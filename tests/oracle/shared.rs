//! A redis-server for the machines of sequences, one database for each worker.
//!
//! Knows: how to start and end it. Does not know: what is kept in it.

use std::process::{Child, Command, Stdio};

/// A server on a socket of its own.
pub struct RedisServer {
    child: Child,
    dir: tempfile::TempDir,
}

impl RedisServer {
    /// `None` where there is none, which is an error in CI.
    pub fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(dir.path().join("s"));
        match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => Some(Self { child, dir }),
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "redis-server cannot be started: {error}");
                eprintln!("SKIPPED: sequences do not share, since redis-server cannot be started: {error}");
                None
            }
        }
    }

    /// The address of a worker's database.
    pub fn url(&self, worker: usize) -> String {
        format!("redis+unix://{}?db={worker}", self.dir.path().join("s").display())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Forgets all of a database.
pub async fn clear(url: &str) {
    let client = redis::Client::open(url).unwrap();
    // It may still be about to start.
    for _ in 0..2_000 {
        if let Ok(mut connection) = client.get_multiplexed_async_connection().await {
            let cleared: redis::RedisResult<()> = redis::cmd("FLUSHDB").query_async(&mut connection).await;
            return cleared.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("redis-server does not start");
}
