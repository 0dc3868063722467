//! What safety costs.

use std::process::Command;

use super::extent;

#[test]
fn five_hundred_decisions_a_second_cost_the_outbox_less_than_a_tenth_of_a_core() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_linegate"))
        .args(["bench", "--json", "--seconds", &extent(2, 30).to_string(), "--outbox"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let costs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(costs.as_array().unwrap().len(), 2);
    // Processor time, so that other work on the machine counts little; the debug build is slower.
    let share = costs[0]["cpu_share"].as_f64().unwrap();
    assert_eq!(costs[0]["durability"], "process");
    assert!(share < if cfg!(debug_assertions) { 0.2 } else { 0.1 }, "{share} of a core");
}
