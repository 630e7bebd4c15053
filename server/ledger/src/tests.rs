//! What goes through more than one module.

mod bytes;
mod documents;
mod exports;
mod log;
mod notes;
mod proofs;
mod tampering;
mod walks;
