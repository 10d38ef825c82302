//! LAYOUT.md says what the code does.

use crate::layout::{self, ANNEX_WORDS, COMPLETION_WORDS, Layout, MAP_BITS, SUBMISSION_WORDS, at};
use crate::operation::{LISTED, Opcode, Refusal, Rejection, result};
use crate::wire::{self, Reply, Request};
use std::collections::BTreeSet;

const TEXT: &str = include_str!("../LAYOUT.md");

/// Rows of the table whose head's second cell is `head`: the number in the first cell, the name in the second.
fn rows(head: &str) -> BTreeSet<(u64, String)> {
    let cells = |line: &'static str| line.trim_start_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let mut lines = TEXT.lines().skip_while(|line| !line.starts_with('|') || cells(line).get(1) != Some(&head)).skip(2);
    let rows = lines.by_ref().take_while(|line| line.starts_with('|')).map(|line| {
        let cells = cells(line);
        let name = cells[1].split('`').nth(1).unwrap_or_else(|| panic!("a name in {line}"));
        (cells[0].parse().unwrap_or_else(|_| panic!("a number in {line}")), name.to_owned())
    });
    rows.collect()
}

#[track_caller]
fn assert_table(head: &str, code: &[(u64, &str)]) {
    assert_eq!(rows(head), code.iter().map(|(number, name)| (*number, (*name).to_owned())).collect());
}

#[test]
fn the_documents_layout_is_ours() {
    let bytes = |words: usize| 8 * words as u64;
    assert_table(
        "of the layout",
        &[
            (layout::MAGIC, "magic"),
            (layout::VERSION, "version"),
            (layout::MOST_ENTRIES, "most entries"),
            (bytes(SUBMISSION_WORDS), "submission bytes"),
            (bytes(COMPLETION_WORDS), "completion bytes"),
            (bytes(ANNEX_WORDS), "annex bytes"),
            (layout::MOST_SLICES as u64, "most slices"),
            (MAP_BITS, "most bits of a map"),
        ],
    );
    let fields = [
        (at::MAGIC, "magic"),
        (at::VERSION, "version"),
        (at::ENTRIES, "entries"),
        (at::SUBMITTED, "submitted"),
        (at::REAPED, "reaped"),
        (at::WAKE_AT, "wake_at"),
        (at::STARTED, "started"),
        (at::COMPLETED, "completed"),
        (at::ARMED, "armed"),
        (at::CLOSED, "closed"),
    ];
    assert_table("field", &fields.map(|(word, name)| (bytes(word), name)));
    let layout = Layout::new(8).unwrap();
    assert_eq!(bytes(layout.words()), 4096 + 8 * (64 + 32 + 1024));
    let starts = [layout.submission(9), layout.completion(9), layout.annex(1)].map(bytes);
    assert_eq!(starts, [4096 + 64, 4096 + 64 * 8 + 32, 4096 + 96 * 8 + 1024]);
}

#[test]
fn the_documents_numbers_are_ours() {
    let opcodes = [
        (Opcode::Put, "put"),
        (Opcode::Get, "get"),
        (Opcode::Take, "take"),
        (Opcode::Flush, "flush"),
        (Opcode::FlushObject, "flush object"),
    ];
    assert_table("opcode", &opcodes.map(|(opcode, name)| (opcode as u64, name)));
    let bits = [(LISTED, "listed"), (layout::CANCELLED, "cancelled"), (layout::TAKEN, "taken")];
    assert_table("bit of word 0 of a submission", &bits.map(|(bit, name)| (u64::from(bit.trailing_zeros()), name)));
    assert_table(
        "result",
        &[
            (result::STORED, "stored"),
            (result::REJECTED, "rejected"),
            (result::FROZEN, "frozen"),
            (result::FILLED, "filled"),
            (result::PARTLY_FILLED, "partly filled"),
            (result::MISSING, "missing"),
            (result::FLUSHED, "flushed"),
            (result::CORRUPT, "corrupt"),
            (result::TIER_FAILED, "tier failed"),
            (result::CANCELLED, "was cancelled"),
            (result::REFUSED, "refused"),
        ],
    );
    let rejections = [(Rejection::Budget as u64, "budget"), (Rejection::Cap as u64, "cap")];
    assert_table("why a put was rejected", &rejections);
    let names = [
        "empty range",
        "misaligned",
        "beyond end",
        "unknown pool",
        "client destroyed",
        "unknown operation",
        "unknown region",
        "beyond region",
        "slices",
        "region lost",
    ];
    let refusals: Vec<_> = Refusal::ALL.iter().zip(names).map(|(refusal, name)| (*refusal as u64, name)).collect();
    assert_table("why an operation was refused", &refusals);
}

#[cfg(feature = "server")]
#[test]
fn the_documents_reasons_for_closing_are_ours() {
    use crate::ring::Closed;
    assert_table("why the queue is closed", &[(Closed::Ended as u64, "ended"), (Closed::Broken as u64, "broken")]);
}

#[test]
fn the_documents_packets_are_ours() {
    let packets = TEXT.lines().skip_while(|line| *line != "```json").skip(1).take_while(|line| *line != "```");
    let (mut requests, mut replies) = (BTreeSet::new(), BTreeSet::new());
    for line in packets {
        let (side, text) = line.split_at(2);
        // Written again it is the same text: no field is missing there, and none is too many.
        let again = match side {
            "> " => serde_json::from_str::<Request>(text).map(|request| serde_json::to_string(&request)),
            "< " => serde_json::from_str::<Reply>(text).map(|reply| serde_json::to_string(&reply)),
            _ => panic!("neither a request nor a reply: {line}"),
        };
        assert_eq!(again.unwrap().unwrap(), text);
        let kind = text.split('"').nth(1).unwrap().to_owned();
        let kinds = if side == "> " { &mut requests } else { &mut replies };
        kinds.insert(kind);
    }
    assert_eq!((requests.len(), replies.len()), (12, 6), "each of them: {requests:?} {replies:?}");
    assert!(TEXT.contains(&format!("`version` is {};", wire::VERSION)));
    assert!(TEXT.contains(&format!("at most {} bytes, with descriptors", wire::PACKET_BYTES)));
}
