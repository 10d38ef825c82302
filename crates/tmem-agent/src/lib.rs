//! The hands of tmem inside a paged program.
#![no_std]

pub mod protocol;
