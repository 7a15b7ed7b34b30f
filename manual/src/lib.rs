//! What the programs say of themselves and how. Manual pages and completions for shells are made from a command line's
//! definition, so that they cannot differ from `--help`; `make install` puts them where they are looked for.
//! [`variables`] is what the environment says to a command line, [`yaml`] how values are written for every reader.

mod completion;
mod page;
pub mod variables;
pub mod yaml;

pub use clap_complete::Shell;
pub use completion::completion;
pub use page::{Page, pages};
