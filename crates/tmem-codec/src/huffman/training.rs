//! What codes are made from.

use super::decode::decode;
use super::encode::streams;
use crate::codec::{Codec, Effort, encode_with};
use crate::word_lz::Search;
use crate::workspace::Workspace;

/// The three streams that `codec` puts into Huffman codes for the block `src`: literals, aux, tokens. `None` if it puts
/// nothing there, or if the block does not get smaller. `dst` is overwritten.
pub fn streams_of<'a>(workspace: &'a mut Workspace, codec: Codec, src: &[u8], dst: &mut [u8]) -> Option<[&'a [u8]; 3]> {
    if !matches!(codec, Codec::WordHuff | Codec::PlanesHuff | Codec::DeltaHuff) {
        return None;
    }
    let done = encode_with(workspace, codec, Effort { search: Search::Bytes, level: 0 }, src, dst)?;
    let plain = &mut workspace.plain[..src.len()];
    let len = decode(&dst[..done.len], plain).ok()?;
    Some(streams(&plain[..len]))
}
