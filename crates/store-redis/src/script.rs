//! The scripts, and calls of them.

use std::sync::LazyLock;

use redis::Cmd;

/// A script that Redis runs whole, or (when it refuses it) not at all.
pub(crate) struct Script {
    text: &'static str,
    hash: String,
}

/// Makes writes.
pub(crate) static COMMIT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("commit.lua")));
/// Looks into many indexes.
pub(crate) static LOOK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("look.lua")));

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }
}

/// Arguments, one behind the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Args {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl Args {
    pub(crate) fn push(&mut self, arg: impl AsRef<[u8]>) -> &mut Self {
        self.data.extend_from_slice(arg.as_ref());
        self.ends.push(self.data.len());
        self
    }

    /// Adds all arguments of another list.
    pub(crate) fn append(&mut self, other: &Self) {
        let begin = self.data.len();
        self.data.extend_from_slice(&other.data);
        self.ends.extend(other.ends.iter().map(|end| begin + end));
    }

    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut begin = 0;
        self.ends.iter().map(move |end| {
            let arg = self.data.get(begin..*end).unwrap_or_default();
            begin = *end;
            arg
        })
    }
}

/// A call of a script on one node.
#[derive(Debug, Clone)]
pub(crate) struct ScriptCall {
    /// Any shard on the node.
    pub(crate) shard: u16,
    pub(crate) keys: Vec<String>,
    pub(crate) args: Args,
}

impl ScriptCall {
    /// Returns the command: by the script's hash, or (if the node does not know it) with its text,
    /// which it then knows.
    pub(crate) fn command(&self, script: &Script, by_hash: bool) -> Cmd {
        let mut cmd = Cmd::with_capacity(
            3 + self.keys.len() + self.args.ends.len(),
            self.args.bytes() + self.keys.iter().map(String::len).sum::<usize>() + 64,
        );
        if by_hash {
            cmd.arg("EVALSHA").arg(script.hash.as_str());
        } else {
            cmd.arg("EVAL").arg(script.text);
        }
        cmd.arg(self.keys.len());
        for key in &self.keys {
            cmd.arg(key.as_str());
        }
        for arg in self.args.iter() {
            cmd.arg(arg);
        }
        cmd
    }
}
