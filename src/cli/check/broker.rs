//! The broker: reachable, or its port free where it runs inside the line.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::Trial;
use crate::config::{Broker, Mqtt};
use crate::line::publishing::{Observation, Subscriber, SubscriberOptions};

pub(super) fn check(mqtt: &Mqtt, patience: Duration) -> Vec<Trial> {
    let mut trials = secrets(mqtt);
    trials.push(match &mqtt.broker {
        Broker::Embedded { listen } => embedded(listen),
        // Over TLS and with a password from the environment the line's own client is needed, and
        // connecting with its name would throw a running line out: the address alone is tried.
        Broker::External { host, port } if mqtt.tls.is_some() || mqtt.password_environment.is_some() => {
            match reach(host, *port, patience) {
                Ok(()) => Trial::ok("broker", format!("{host}:{port} accepts connections (MQTT itself was not tried)")),
                Err(problem) => Trial::fail("broker", problem),
            }
        }
        Broker::External { host, port } => external(mqtt, host, *port, patience),
    });
    trials
}

fn embedded(listen: &str) -> Trial {
    match TcpListener::bind(listen) {
        Ok(_) => Trial::ok("broker", format!("{listen} is free for the embedded broker")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Trial::fail(
            "broker",
            format!(
                "{listen} is in use: is the line running already? else choose another port for `mqtt.broker.listen`"
            ),
        ),
        Err(error) => Trial::fail("broker", format!("cannot listen on {listen}: {error}")),
    }
}

fn reach(host: &str, port: u16, patience: Duration) -> Result<(), String> {
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("the host name {host} cannot be resolved: {error}; check `mqtt.broker.host`"))?;
    let mut last = format!("the host name {host} has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(_) => return Ok(()),
            Err(error) => last = format!("{host}:{port} cannot be reached: {error}; is the broker running?"),
        }
    }
    Err(last)
}

/// A real MQTT connection under a name of its own, so that a running line is not thrown out.
fn external(mqtt: &Mqtt, host: &str, port: u16, patience: Duration) -> Trial {
    if let Err(problem) = reach(host, port, patience) {
        return Trial::fail("broker", problem);
    }
    let options = SubscriberOptions {
        host: host.to_owned(),
        port,
        site: None,
        line: None,
        station: None,
        username: mqtt.username.clone(),
        password_file: mqtt.password_file.clone(),
    };
    let subscriber = match Subscriber::start(&options) {
        Ok(subscriber) => subscriber,
        Err(error) => return Trial::error("broker", error),
    };
    let started = Instant::now();
    loop {
        match subscriber.next(patience.saturating_sub(started.elapsed())) {
            Some(Observation::Connected) => {
                return Trial::ok("broker", format!("{host}:{port} speaks MQTT 5 with us"));
            }
            Some(Observation::Disconnected { reason }) => {
                return Trial::fail("broker", format!("{host}:{port} refuses MQTT: {reason}"));
            }
            Some(_) => {}
            None => {
                let waited = patience.as_secs_f64();
                return Trial::fail("broker", format!("{host}:{port} did not answer to MQTT within {waited} s"));
            }
        }
    }
}

/// Files and variables that the connection needs; only what is wrong is told.
fn secrets(mqtt: &Mqtt) -> Vec<Trial> {
    let tls = mqtt.tls.as_ref();
    let files = [
        ("mqtt.password_file", mqtt.password_file.as_ref()),
        ("mqtt.tls.ca_file", tls.and_then(|tls| tls.ca_file.as_ref())),
        ("mqtt.tls.client_pkcs12_file", tls.and_then(|tls| tls.client_pkcs12_file.as_ref())),
        ("mqtt.tls.client_password_file", tls.and_then(|tls| tls.client_password_file.as_ref())),
    ];
    let mut trials: Vec<Trial> = files
        .into_iter()
        .filter_map(|(what, file)| {
            let file = file?;
            let error = std::fs::File::open(file).err()?;
            Some(Trial::fail(what, format!("{} cannot be read: {error}", file.display())))
        })
        .collect();
    if let Some(variable) = &mqtt.password_environment
        && std::env::var_os(variable).is_none_or(|value| value.is_empty())
    {
        trials.push(Trial::fail("mqtt.password_environment", format!("the variable {variable} is not set here")));
    }
    trials
}
