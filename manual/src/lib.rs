//! What is made from a command line's definition, so that it cannot differ from `--help`: manual pages, and completions
//! for shells. The programs print both of themselves; `make install` puts them where they are looked for.

mod completion;
mod page;

pub use clap_complete::Shell;
pub use completion::completion;
pub use page::{Page, pages};
