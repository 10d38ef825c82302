//! Block codecs for memory pages.
#![no_std]
