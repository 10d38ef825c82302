//! zstd frames without what a block's header says already: no magic number, content size, checksum or dictionary id.
//!
//! zstd reads a source that changes under it safely: its matches are bounded by positions, and its entropy stage works
//! on its own copy of the literals. Its contexts are the only memory this crate ever asks an allocator for: once each,
//! at first use.

use zstd_safe::{CCtx, CParameter, DCtx, DParameter, FrameFormat};

use crate::codec::Corrupt;

/// The contexts, made when first needed.
#[derive(Default)]
pub(crate) struct Contexts {
    compress: Option<CCtx<'static>>,
    decompress: Option<DCtx<'static>>,
}

impl Contexts {
    pub(crate) const fn new() -> Self {
        Self { compress: None, decompress: None }
    }

    /// What zstd holds on the heap now.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.compress.as_ref().map_or(0, CCtx::sizeof) + self.decompress.as_ref().map_or(0, DCtx::sizeof)
    }

    fn compressor(&mut self) -> Option<&mut CCtx<'static>> {
        if self.compress.is_none() {
            let mut context = CCtx::try_create()?;
            context.set_parameter(CParameter::Format(FrameFormat::Magicless)).ok()?;
            context.set_parameter(CParameter::ContentSizeFlag(false)).ok()?;
            context.set_parameter(CParameter::ChecksumFlag(false)).ok()?;
            context.set_parameter(CParameter::DictIdFlag(false)).ok()?;
            self.compress = Some(context);
        }
        self.compress.as_mut()
    }

    /// `None` if the frame does not fit `dst`, or if there is no memory for a context.
    pub(crate) fn encode(&mut self, level: i32, src: &[u8], dst: &mut [u8]) -> Option<usize> {
        let context = self.compressor()?;
        context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
        context.compress2(dst, src).ok()
    }

    fn decompressor(&mut self) -> Option<&mut DCtx<'static>> {
        if self.decompress.is_none() {
            let mut context = DCtx::try_create()?;
            context.set_parameter(DParameter::Format(FrameFormat::Magicless)).ok()?;
            self.decompress = Some(context);
        }
        self.decompress.as_mut()
    }

    /// The frame must hold exactly `dst.len()` bytes.
    pub(crate) fn decode(&mut self, src: &[u8], dst: &mut [u8]) -> Result<(), Corrupt> {
        let context = self.decompressor().ok_or(Corrupt)?;
        match context.decompress(dst, src) {
            Ok(len) if len == dst.len() => Ok(()),
            _ => Err(Corrupt),
        }
    }
}
