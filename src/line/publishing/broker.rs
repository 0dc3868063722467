//! The broker inside the process: MQTT 5 on one port, nothing kept on disk.
//!
//! rumqttd serves one protocol version a port; ours is 5, as responses and expiry need it (clients
//! must ask for it: `mosquitto_sub -V mqttv5`). What it retains and queues lives in memory and
//! goes with the process.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttd::protocol::v5::V5;
use rumqttd::{ConnectionSettings, LinkType, Router, RouterConfig, Server, ServerSettings};
use tokio::sync::oneshot;

use super::PublishingError;
use super::credentials::Credentials;
use crate::line::prompt::take_short_turns;

/// Largest packet that the embedded broker takes, bytes.
pub(super) const MAX_PACKET: usize = 512 * 1024;
/// How long the broker may take to answer its first connection.
const START: Duration = Duration::from_secs(5);
/// How long subscribers get to receive the last words before their connections are cut.
const GRACE: Duration = Duration::from_millis(300);

/// A broker that listens until it is dropped.
#[derive(Debug)]
pub(super) struct EmbeddedBroker {
    address: SocketAddr,
    quit: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedBroker {
    /// Starts the broker on `listen`; port 0 takes any free one. With credentials, every client
    /// must present them. Returns when it answers connections.
    pub(super) fn start(listen: &str, credentials: Option<&Credentials>) -> Result<Self, PublishingError> {
        let wished: SocketAddr =
            listen.parse().map_err(|source| PublishingError::ListenAddress { listen: listen.to_owned(), source })?;
        // rumqttd binds by itself, reports a taken port only in its log and no chosen port at all:
        // so the port is taken first, by us, and freed again.
        let listen_error = |source| PublishingError::Listen { listen: wished, source };
        let probe = TcpListener::bind(wished).map_err(listen_error)?;
        let address = probe.local_addr().map_err(listen_error)?;
        drop(probe);
        if !address.ip().is_loopback() && credentials.is_none() {
            tracing::warn!(%address, "embedded broker is open to the network without a password");
        }
        // The router's thread takes after the one that starts it.
        let start = || {
            take_short_turns();
            Router::new(0, router_settings()).spawn()
        };
        let router = std::thread::scope(|scope| scope.spawn(start).join()).map_err(|_| PublishingError::Thread {
            source: std::io::Error::other("the router could not be started"),
        })?;
        let mut server = Server::new(server_settings(address, credentials), router, V5);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| PublishingError::Thread { source })?;
        let (quit, quitting) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("broker".into())
            .spawn(move || {
                take_short_turns();
                runtime.block_on(async {
                    tokio::select! {
                        result = server.start(LinkType::Remote) => {
                            if let Err(error) = result {
                                tracing::error!(%address, %error, "embedded broker stopped");
                            }
                        }
                        _ = quitting => tokio::time::sleep(GRACE).await,
                    }
                });
            })
            .map_err(|source| PublishingError::Thread { source })?;
        let broker = Self { address, quit: Some(quit), thread: Some(thread) };
        broker.wait_listening()?;
        tracing::info!(%address, "embedded broker listens");
        Ok(broker)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn wait_listening(&self) -> Result<(), PublishingError> {
        let since = Instant::now();
        loop {
            let gone = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            match TcpStream::connect_timeout(&self.address, Duration::from_millis(200)) {
                Ok(_) if !gone => return Ok(()),
                _ if gone => {
                    let source = std::io::Error::from(std::io::ErrorKind::AddrInUse);
                    return Err(PublishingError::Listen { listen: self.address, source });
                }
                _ if since.elapsed() > START => {
                    return Err(PublishingError::BrokerSilent { listen: self.address, seconds: START.as_secs() });
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        if let Some(quit) = self.quit.take() {
            // A broker that stopped by itself no longer listens for this.
            let _ = quit.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("embedded broker ended with a panic");
        }
    }
}

fn router_settings() -> RouterConfig {
    RouterConfig {
        max_connections: 256,
        max_outgoing_packet_count: 200,
        // Memory per topic filter at most: segments of 1 MiB, oldest dropped.
        max_segment_size: 1024 * 1024,
        max_segment_count: 8,
        ..RouterConfig::default()
    }
}

fn server_settings(listen: SocketAddr, credentials: Option<&Credentials>) -> ServerSettings {
    ServerSettings {
        name: "broker".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 5000,
            max_payload_size: MAX_PACKET,
            max_inflight_count: 200,
            auth: credentials.map(|given| HashMap::from([(given.username.clone(), given.password.clone())])),
            external_auth: None,
            dynamic_filters: true,
        },
    }
}
