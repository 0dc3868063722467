//! What must hold between keys.

use std::collections::BTreeMap;

use super::document::Node;
use super::walk::Walk;

/// Rules of the line's configuration.
pub(super) fn line(root: &Node, walk: &mut Walk<'_>) {
    if let Some(model) = root.get("model") {
        match (model.get("bundle"), model.get("registry")) {
            (Some(_), Some(registry)) => walk.report(
                registry,
                "`model.registry` and `model.bundle` are both there, but only one model can inspect",
                Some("keep `registry` to change models while running, or `bundle` for a fixed one"),
            ),
            (None, None) => walk.report(
                model,
                "`model` names neither `bundle` nor `registry`",
                Some("add `bundle = \"FOLDER\"` for a fixed model, or `registry = \"FOLDER\"` for the active one"),
            ),
            _ => {}
        }
        if let Some(providers) = model.get("providers") {
            twice(providers.items().iter(), "execution provider", NAME, walk);
        }
    }
    if let Some(cameras) = root.get("camera") {
        twice(cameras.items().iter().filter_map(|camera| camera.get("name")), "camera", NAME, walk);
        // Two connections to one GenICam device take each other's frames; others refuse the second.
        let genicam = |camera: &&Node| camera.get("pipeline").and_then(Node::text) == Some("genicam");
        let devices = cameras.items().iter().filter(genicam).filter_map(|camera| camera.get("parameters"));
        let hint = "a device can serve one `[[camera]]` alone; take one of them out";
        twice(devices.filter_map(|parameters| parameters.get("camera")), "device", hint, walk);
        let by_software = |camera: &&Node| camera.get("trigger").and_then(Node::text) == Some("software");
        for presence in cameras.items().iter().filter(by_software).filter_map(|camera| camera.get("presence")) {
            walk.report(
                presence,
                "`presence` at a camera that is triggered by software: what is triggered is a part",
                Some("leave `presence` out"),
            );
        }
    }
    if let Some(parts) = root.get("part") {
        combined(parts, root.get("camera"), walk);
    }
    if let Some(mqtt) = root.get("mqtt") {
        password(mqtt, walk);
    }
    if let Some(retrain) = root.entry("retrain") {
        if root.get("model").is_some_and(|model| model.get("registry").is_none()) {
            walk.report(
                &Node { at: retrain.at, ..retrain.value.clone() },
                "`retrain` needs `model.registry`: a new model must be put somewhere the line looks",
                Some("use `model.registry` in place of `model.bundle`"),
            );
        }
        if let (Some(base), Some(gate)) = (retrain.value.get("base"), retrain.value.get("gate"))
            && base.text().is_some()
            && base.text() == gate.text()
        {
            walk.report(
                gate,
                "`retrain.gate` is the base set: a model would be judged on what it was trained on",
                Some("keep a folder of pictures apart that is never trained on"),
            );
        }
    }
}

/// Rules of the training configuration.
pub(super) fn training(root: &Node, walk: &mut Walk<'_>) {
    let rate = |name| root.get(name).and_then(Node::number);
    if let (Some(reject), Some(suspect), Some(node)) =
        (rate("false_reject_rate"), rate("suspect_rate"), root.get("suspect_rate"))
        && suspect < reject
    {
        walk.report(
            node,
            format!("`suspect_rate` is {suspect}, below `false_reject_rate` {reject}"),
            Some("every rejected part is beyond the suspect boundary too, so it must be at least as high"),
        );
    }
    for name in ["pooling", "context"] {
        let (Some(side), Some(node)) = (rate(name), root.get(name)) else { continue };
        if side % 2.0 == 0.0 && (name, side) != ("context", 0.0) {
            walk.report(node, format!("`{name}` is {side}"), Some("a square around a cell has an odd side"));
        }
    }
}

/// Rules of the parts that several cameras see.
fn combined(parts: &Node, cameras: Option<&Node>, walk: &mut Walk<'_>) {
    let known: Vec<&str> =
        cameras.map_or(&[][..], Node::items).iter().filter_map(|camera| camera.get("name")?.text()).collect();
    twice(parts.items().iter().filter_map(|part| part.get("name")), "part", NAME, walk);
    // A camera's frame belongs to one part.
    let seen = parts.items().iter().filter_map(|part| part.get("cameras")).flat_map(|list| list.items().iter());
    twice(seen.clone(), "camera of a part", NAME, walk);
    for camera in seen {
        if let Some(name) = camera.text().filter(|name| !known.contains(name)) {
            let help =
                super::problem::nearest(name, known.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
            walk.report(camera, format!("there is no camera `{name}`"), help.as_deref());
        }
    }
    for part in parts.items() {
        let number = |name| part.get(name).and_then(Node::number);
        let count = part.get("cameras").map_or(0, |list| list.items().len());
        let wanted = part.get("rule").and_then(Node::text) == Some("at_least");
        match (wanted, part.get("at_least")) {
            (true, None) => {
                walk.report(
                    part,
                    "rule `at_least` without a number",
                    Some("add `at_least = …`, or use `all` or `any`"),
                );
            }
            (false, Some(node)) => walk.report(
                node,
                "`at_least` says nothing to this rule",
                Some("leave it out, or set `rule = \"at_least\"`"),
            ),
            (true, Some(node)) if number("at_least").is_some_and(|n| n > count as f64) => {
                walk.report(node, format!("`at_least` is more than the part's {count} camera(s)"), None);
            }
            _ => {}
        }
        if let (Some(accept), Some(node)) = (number("accept_frames"), part.get("accept_frames"))
            && accept > number("frames").unwrap_or(1.0)
        {
            walk.report(
                node,
                "`accept_frames` is more than `frames`",
                Some("a part with so many good frames cannot be"),
            );
        }
    }
}

fn password(mqtt: &Node, walk: &mut Walk<'_>) {
    let file = mqtt.get("password_file");
    let environment = mqtt.get("password_environment");
    if let (Some(_), Some(environment)) = (file, environment) {
        walk.report(
            environment,
            "`mqtt.password_environment` and `mqtt.password_file` are both there",
            Some("keep one of them"),
        );
    }
    if let (Some(password), None) = (file.or(environment), mqtt.get("username")) {
        walk.report(password, "a password without `mqtt.username`", Some("add `username = …` to `mqtt`"));
    }
    if let (Some(_), Some(environment)) = (mqtt.get("command_secret_file"), mqtt.get("command_secret_environment")) {
        walk.report(
            environment,
            "`mqtt.command_secret_environment` and `mqtt.command_secret_file` are both there",
            Some("keep one of them"),
        );
    }
    let embedded = mqtt.get("broker").is_none_or(|broker| broker.get("kind").and_then(Node::text) == Some("embedded"));
    if let (true, Some(tls)) = (embedded, mqtt.get("tls")) {
        walk.report(
            tls,
            "`mqtt.tls` is for an external broker; the embedded one is reached on this machine alone",
            Some("leave `tls` out, or set `broker = { kind = \"external\", host = …, port = 8883 }`"),
        );
    }
    if let Some(tls) = mqtt.get("tls")
        && let (Some(password), None) = (tls.get("client_password_file"), tls.get("client_pkcs12_file"))
    {
        walk.report(
            password,
            "`mqtt.tls.client_password_file` without `client_pkcs12_file`",
            Some("add the certificate that the password opens"),
        );
    }
}

/// What to do about a name that stands there twice.
const NAME: &str = "every one needs a name of its own";

/// Reports texts that stand there twice.
fn twice<'n>(nodes: impl Iterator<Item = &'n Node>, what: &str, hint: &str, walk: &mut Walk<'_>) {
    let mut seen = BTreeMap::new();
    for node in nodes {
        let Some(text) = node.text() else { continue };
        if let Some(first) = seen.get(text) {
            let message = format!("{what} `{text}` stands there twice, first on line {first}");
            walk.report(node, message, Some(hint));
        } else {
            seen.insert(text, walk.sources().line(node.at));
        }
    }
}
