//! The command `tmem`.
fn main() {}
