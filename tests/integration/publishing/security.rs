//! Who may connect, who may command, and what is never told.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use linegate::config::Config;
use linegate::line::publishing::CommandReply;

use super::brokers::{Listener, Mosquitto, PATIENCE, eventually, password_file, publish, request_with};
use super::{config, decision, start, wait_acknowledged};

fn openssl(folder: &Path, arguments: &str) {
    let output =
        Command::new("openssl").current_dir(folder).args(arguments.split(' ')).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and certificates that it signed: `broker` for localhost, `stranger` for another host,
/// `line` for a client. Beside them an authority that nobody trusts with a client of its own.
fn certificates(folder: &Path) {
    std::fs::write(folder.join("localhost.ext"), "subjectAltName=DNS:localhost\n").unwrap();
    std::fs::write(folder.join("elsewhere.ext"), "subjectAltName=DNS:elsewhere.example\n").unwrap();
    for authority in ["ca", "foreign"] {
        openssl(
            folder,
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
            ),
        );
    }
    for (name, authority, extension) in [
        ("broker", "ca", "localhost.ext"),
        ("stranger", "ca", "elsewhere.ext"),
        ("line", "ca", "localhost.ext"),
        ("intruder", "foreign", "localhost.ext"),
    ] {
        openssl(folder, &format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        openssl(
            folder,
            &format!(
                "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 2 \
                 -extfile {extension} -out {name}.pem"
            ),
        );
        openssl(
            folder,
            &format!("pkcs12 -export -inkey {name}.key -in {name}.pem -out {name}.p12 -passout pass:pkcs-secret"),
        );
    }
    std::fs::write(folder.join("pkcs12-password"), "pkcs-secret\n").unwrap();
}

#[test]
fn a_broker_that_asks_for_client_certificates_lets_only_ours_in_and_must_have_the_name_it_is_called_by() {
    let keys = tempfile::tempdir().unwrap();
    certificates(keys.path());
    let file = |name: &str| keys.path().join(name).display().to_string();
    let broker_with = |certificate: &str| {
        Mosquitto::with(|_| {
            format!(
                "require_certificate true\nuse_identity_as_username true\ncafile {}\ncertfile {}\nkeyfile {}",
                file("ca.pem"),
                file(&format!("{certificate}.pem")),
                file(&format!("{certificate}.key"))
            )
        })
    };
    let client = |port: u16, certificate: Option<&str>| {
        let identity = certificate.map_or_else(String::new, |name| {
            format!(
                ", client_pkcs12_file = {:?}, client_password_file = {:?}",
                file(&format!("{name}.p12")),
                file("pkcs12-password")
            )
        });
        config(&format!(
            "broker = {{ kind = \"external\", host = \"localhost\", port = {port} }}\n\
             tls = {{ ca_file = {:?}{identity} }}",
            file("ca.pem")
        ))
    };
    let broker = broker_with("broker");
    let folder = tempfile::tempdir().unwrap();
    let delivery = start(&client(broker.port, Some("line")), folder.path());
    assert!(delivery.wait_connected(PATIENCE));
    delivery.submit(decision("front")).unwrap();
    wait_acknowledged(&delivery);
    delivery.stop(PATIENCE);
    for refused in [None, Some("intruder")] {
        let delivery = start(&client(broker.port, refused), folder.path());
        assert!(!delivery.wait_connected(Duration::from_millis(700)), "{refused:?}");
        delivery.stop(Duration::ZERO);
    }
    let other = broker_with("stranger");
    let delivery = start(&client(other.port, Some("line")), folder.path());
    assert!(!delivery.wait_connected(Duration::from_millis(700)), "its certificate names another host");
    delivery.stop(Duration::ZERO);
}

#[test]
fn commands_need_the_stations_secret_where_it_has_one() {
    let broker = Mosquitto::start();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    let mqtt = format!(
        "broker = {{ kind = \"external\", host = \"127.0.0.1\", port = {} }}\ncommand_secret_file = {:?}",
        broker.port,
        secret.display().to_string()
    );
    std::fs::write(&secret, "\n").unwrap();
    let empty = linegate::line::publishing::Delivery::start(&config(&mqtt), super::outbox(folder.path()), "boot");
    assert!(empty.is_err(), "an empty secret is none");
    std::fs::write(&secret, "open sesame\n").unwrap();
    let delivery = start(&config(&mqtt), folder.path());
    assert!(delivery.wait_connected(PATIENCE));
    let ask = |further: &[&str]| -> CommandReply {
        let answer = request_with(broker.port, "linegate/v1/plant/line-1/cell/cmd/ping", b"{}", further);
        serde_json::from_str(answer.strip_prefix("mark-42 ").unwrap()).unwrap()
    };
    for wrong in [&[][..], &["-D", "publish", "user-property", "secret", "open sesam"]] {
        let reply = ask(wrong);
        assert!(!reply.ok && reply.error.as_ref().is_some_and(|error| error.contains("not allowed")), "{reply:?}");
        assert!(reply.result.is_none());
    }
    assert!(ask(&["-D", "publish", "user-property", "secret", "open sesame"]).ok);
}

#[test]
fn the_example_of_access_rules_lets_everybody_do_their_own_work_and_no_more() {
    let rules = crate::support::root().join("deploy/mosquitto.acl");
    let broker = Mosquitto::with(|folder| {
        let passwords = folder.join("passwords");
        password_file(&passwords, "station1", "a");
        for user in ["controller1", "operator"] {
            super::brokers::add_password(&passwords, user, "a");
        }
        format!("allow_anonymous false\npassword_file {}\nacl_file {}", passwords.display(), rules.display())
    });
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("password");
    std::fs::write(&secret, "a\n").unwrap();
    let line: Config = toml::from_str(&format!(
        "station = {{ site = \"plant1\", line = \"line1\", station = \"station1\" }}\nmodel = {{ bundle = \"b\" }}\n\
         camera = [{{ name = \"front\", pipeline = \"test\" }}]\n[mqtt]\nusername = \"station1\"\n\
         password_file = {:?}\nbroker = {{ kind = \"external\", host = \"127.0.0.1\", port = {} }}",
        secret.display().to_string(),
        broker.port
    ))
    .unwrap();
    let as_user = |user: &'static str| ["-u", user, "-P", "a"];
    let controller =
        Listener::start(broker.port, "linegate/v1/plant1/line1/station1/+/decision", &as_user("controller1"));
    let delivery = start(&line, folder.path());
    assert!(delivery.wait_connected(PATIENCE));
    delivery.submit(decision("front")).unwrap();
    wait_acknowledged(&delivery);
    controller.wait_on("/decision", 1);

    let ping = "linegate/v1/plant1/line1/station1/cmd/ping";
    assert!(request_with(broker.port, ping, b"{}", &as_user("operator")).contains("\"ok\":true"));
    // The controller forges a decision, and a command that the station would answer.
    let forged = "linegate/v1/plant1/line1/station1/front/decision";
    let listening = Listener::start(broker.port, "answers/test", &as_user("operator"));
    for (topic, further) in [(forged, &[][..]), (ping, &["-D", "publish", "response-topic", "answers/test"])] {
        let mut arguments = vec!["-t", topic, "-m", "{}"];
        arguments.extend(as_user("controller1"));
        arguments.extend(further);
        publish(broker.port, &arguments);
    }
    // What comes after the refused ones shows that they did not come.
    delivery.submit(decision("front")).unwrap();
    let heard = controller.wait_on("/decision", 2);
    assert!(heard.iter().all(|message| message.payload != "{}"), "{heard:?}");
    assert!(request_with(broker.port, ping, b"{}", &as_user("operator")).contains("\"ok\":true"));
    eventually("the operator hears the answer", PATIENCE, || !listening.received().is_empty());
    assert_eq!(listening.received().len(), 1, "the controller's command had no answer");
}

#[test]
fn no_secret_is_in_the_log_however_much_is_logged() {
    let broker = Mosquitto::with(|folder| {
        let passwords = folder.join("passwords");
        password_file(&passwords, "line", "pass-2f9c-word");
        format!("allow_anonymous false\npassword_file {}", passwords.display())
    });
    let mut site = crate::run::Site::new("[model]\nbundle = \"bundle\"\nthreads = 1\n");
    let password = site.folder.path().join("password");
    std::fs::write(&password, "pass-2f9c-word\n").unwrap();
    site.add(&format!(
        "[mqtt]\nusername = \"line\"\npassword_file = \"password\"\n\
         command_secret_environment = \"LINEGATE_TEST_COMMANDS\"\n\
         broker = {{ kind = \"external\", host = \"127.0.0.1\", port = {} }}",
        broker.port
    ));
    site.folder_camera("cam", 20, &[128; 6], "");
    let output = crate::run::linegate(&["run", "--config", site.path().to_str().unwrap()])
        .args(["--log-level", "trace,ort=warn"])
        .env("LINEGATE_TEST_COMMANDS", "command-71ab-secret")
        .output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        other => panic!("{other:?}"),
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("broker connected"), "{said}");
    for secret in ["pass-2f9c-word", "command-71ab-secret"] {
        assert!(!said.contains(secret), "{secret} was logged");
    }
}
