//! Every option the server knows, as one table: name, kind, default, meaning, and whether it has
//! an effect. Reading, notes, "did you mean" and the documentation page all come from here.
//!
//! The file uses the standard library only and nothing of this crate, because the project's own
//! build steps compile it too, to generate the page.

/// What kind of value an option takes, and in which unit a bare number is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that holds, or may hold, a password or token: it is never shown again.
    Secret,
    /// A whole number, zero or more.
    Integer,
    /// A size in bytes; `KiB` and `MiB` are understood.
    Bytes,
    /// A time; a bare number is seconds; `ms`, `s`, `m` and `h` are understood.
    Seconds,
    /// A time; a bare number is minutes.
    Minutes,
    /// `true` or `false`; `1` and `0` mean the same.
    Bool,
    /// One of a few words.
    Choice(&'static [&'static str]),
}

impl Kind {
    /// Returns the kind as the documentation names it.
    pub fn describe(self) -> String {
        match self {
            Kind::Text => "text".into(),
            Kind::Secret => "secret text".into(),
            Kind::Integer => "number".into(),
            Kind::Bytes => "bytes".into(),
            Kind::Seconds => "seconds".into(),
            Kind::Minutes => "minutes".into(),
            Kind::Bool => "true or false".into(),
            Kind::Choice(words) => words.join(", "),
        }
    }
}

/// Whether an option does anything in this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is used.
    Used,
    /// It is accepted, so that DTM's files load, and does nothing; the text says why.
    Ignored(&'static str),
}

/// One option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionSpec {
    /// The key path in the YAML file, joined by points: `Store.Driver`.
    pub key: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The built-in value, as it would be written in the file; empty if there is none.
    pub default: &'static str,
    /// Whether it does anything.
    pub effect: Effect,
    /// Whether DTM has it too.
    pub from_dtm: bool,
    /// The first version that knows it.
    pub since: &'static str,
    /// What it means, as one or two sentences.
    pub doc: &'static str,
}

impl OptionSpec {
    /// Returns the environment variable of the option.
    pub fn env(&self) -> String {
        env_name(self.key)
    }
}

/// Returns the environment variable of a key path by DTM's rule (spec 06 §1): the parts joined
/// with `_`, camel case split at word borders, in upper case.
pub fn env_name(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    let mut name = String::with_capacity(key.len() + 8);
    for (index, &letter) in letters.iter().enumerate() {
        if letter == '.' {
            name.push('_');
            continue;
        }
        let before = index.checked_sub(1).map(|i| letters[i]);
        let after = letters.get(index + 1);
        let starts_word = letter.is_uppercase()
            && before.is_some_and(|before| {
                let ends_acronym = before.is_uppercase() && after.is_some_and(|c| c.is_lowercase());
                before.is_lowercase() || before.is_ascii_digit() || ends_acronym
            });
        if starts_word {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}

/// Returns the option with this key path.
pub fn find(key: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.key == key)
}

/// An option of DTM's that works here.
const fn dtm(
    key: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> OptionSpec {
    OptionSpec { key, kind, default, effect: Effect::Used, from_dtm: true, since: "0.1.0", doc }
}

/// An option of DTM's that is accepted and does nothing here.
const fn ignored(
    key: &'static str,
    kind: Kind,
    default: &'static str,
    why: &'static str,
) -> OptionSpec {
    let effect = Effect::Ignored(why);
    OptionSpec { key, kind, default, effect, from_dtm: true, since: "0.1.0", doc: "" }
}

/// An option that only this server has.
const fn ours(
    key: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> OptionSpec {
    OptionSpec { key, kind, default, effect: Effect::Used, from_dtm: false, since: "0.1.0", doc }
}

const DRIVERS: Kind =
    Kind::Choice(&["boltdb", "embedded", "memory", "redis", "mysql", "postgres", "sqlserver"]);
const LEVELS: Kind = Kind::Choice(&["debug", "info", "warn", "error"]);
const FORMATS: Kind = Kind::Choice(&["text", "json"]);

const NO_DISCOVERY: &str = "service discovery is not in this build";
const ROUND_ROBIN: &str = "a name's addresses are called in turn";
const ALWAYS_SYNC: &str = "results are always written in batches, with the durability each needs";

/// Every option, in the order of the documentation page.
pub const OPTIONS: &[OptionSpec] = &[
    dtm(
        "Store.Driver",
        DRIVERS,
        "boltdb",
        "Where transactions are kept. `boltdb` and `embedded` both mean the embedded store, \
         `memory` forgets everything at the end; `mysql` (MariaDB too), `postgres` and `redis` are \
         shared by any number of servers. `sqlserver` is not supported.",
    ),
    ours("Store.Path", Kind::Text, "./dtmd-data", "The embedded store's directory."),
    dtm(
        "Store.Host",
        Kind::Text,
        "",
        "The database's host. For Redis, several `host:port` with commas between them are a cluster, \
         or the Sentinels if `Store.SentinelMaster` is set.",
    ),
    dtm("Store.Port", Kind::Integer, "0", "The database's port; unused where Host lists nodes."),
    dtm("Store.User", Kind::Text, "", "The database's user."),
    dtm("Store.Password", Kind::Secret, "", "The user's password."),
    dtm(
        "Store.Db",
        Kind::Text,
        "dtm",
        "The database; it must exist. For Redis a number, and anything else is 0.",
    ),
    dtm("Store.Schema", Kind::Text, "public", "PostgreSQL: the schema of the tables."),
    dtm("Store.MaxOpenConns", Kind::Integer, "500", "SQL: connections at most."),
    ours(
        "Store.MaxWriteConns",
        Kind::Integer,
        "1",
        "SQL: of `Store.MaxOpenConns`, connections that write; so many commits are on their way at a \
         time. More of them pay where hundreds of transactions are under way and the database has \
         processors to spare.",
    ),
    dtm("Store.MaxIdleConns", Kind::Integer, "500", "SQL: idle connections kept at most."),
    dtm(
        "Store.ConnMaxLifeTime",
        Kind::Minutes,
        "5",
        "SQL: a connection older than this is replaced.",
    ),
    ours(
        "Store.Tls",
        Kind::Choice(&["off", "on"]),
        "off",
        "Whether to speak TLS with the database. `on` checks its certificate against the system's \
         authorities and `Store.TlsCaFile`.",
    ),
    ours(
        "Store.TlsCaFile",
        Kind::Text,
        "",
        "A PEM file of authorities for the database's certificate.",
    ),
    ours(
        "Store.SentinelMaster",
        Kind::Text,
        "",
        "Redis: the name under which the Sentinels in `Store.Host` know the master.",
    ),
    ours(
        "Store.RedisWaitReplicas",
        Kind::Integer,
        "0",
        "Redis: replicas that must have a change before it is acknowledged.",
    ),
    ignored(
        "Store.DataExpire",
        Kind::Seconds,
        "604800",
        "unfinished transactions never expire; for finished ones set Store.FinishedDataExpire",
    ),
    dtm(
        "Store.FinishedDataExpire",
        Kind::Seconds,
        "86400",
        "How long a finished transaction can still be queried. Unfinished ones never expire.",
    ),
    dtm(
        "Store.RedisPrefix",
        Kind::Text,
        "{a}",
        "Redis: how keys begin. Braces are left out: each transaction chooses its own slot.",
    ),
    ours(
        "Listen",
        Kind::Text,
        "127.0.0.1",
        "The address to listen on. Anything but a loopback address needs `AllowAnonymous: \
         true`, because callers are not authenticated.",
    ),
    ours(
        "AllowAnonymous",
        Kind::Bool,
        "false",
        "Lets callers from other machines in without authentication. Set it only on a network \
         where every host may start, stop and read transactions.",
    ),
    dtm(
        "HttpPort",
        Kind::Integer,
        "36789",
        "The port of the HTTP and JSON-RPC interface; 0 takes any free one.",
    ),
    dtm(
        "GrpcPort",
        Kind::Integer,
        "36790",
        "The port of the gRPC interface; 0 takes any free one. Left at 36790 it is any free one \
         too if HttpPort is 0, or if HttpPort is not 36789 and 36790 is taken.",
    ),
    ignored(
        "JsonRpcPort",
        Kind::Integer,
        "36791",
        "JSON-RPC is served on HttpPort, as DTM does it",
    ),
    ignored("AdminBasePath", Kind::Text, "", "the admin pages are not in this build"),
    dtm(
        "TransCronInterval",
        Kind::Seconds,
        "3",
        "How often due transactions that nobody works on are looked for.",
    ),
    dtm(
        "TimeoutToFail",
        Kind::Seconds,
        "35",
        "How long a transaction may stay prepared before it is rolled back, unless it says \
         otherwise. Not less than RetryInterval.",
    ),
    dtm(
        "RetryInterval",
        Kind::Seconds,
        "10",
        "The first wait before a branch call is repeated; every further wait doubles. At \
         least 10.",
    ),
    ours(
        "RetryIntervalMax",
        Kind::Seconds,
        "3600",
        "The longest wait between two calls of one branch. Not less than RetryInterval.",
    ),
    ours(
        "RetryJitterPercent",
        Kind::Integer,
        "10",
        "By how much, up or down, each wait deviates, so that many transactions do not come \
         back in one moment. At most 50.",
    ),
    ours(
        "Lease",
        Kind::Seconds,
        "10",
        "How long a server may be silent before others on the same store take its transactions \
         over. Servers renew four times as often. At least 2.",
    ),
    dtm(
        "RequestTimeout",
        Kind::Seconds,
        "3",
        "How long one branch call may take, unless the transaction says otherwise.",
    ),
    ours(
        "DestinationConcurrency",
        Kind::Integer,
        "64",
        "How many branch calls to one host and port may be under way at a time.",
    ),
    ours(
        "BreakerFailures",
        Kind::Integer,
        "5",
        "After how many calls in a row without an answer, or with 502, 503 or 504, a host and \
         port is left alone for BreakerOpen; 0 switches this off.",
    ),
    ours(
        "BreakerOpen",
        Kind::Seconds,
        "5",
        "How long a host and port that does not answer is left alone before one call tries it \
         again; twice as long after each try that fails, but not above 20 s unless this says so.",
    ),
    ours(
        "SubstringResult",
        Kind::Bool,
        "true",
        "How a branch's answer is read. `true`: DTM's rule, FAILURE or ONGOING anywhere in \
         the body counts. `false`: only the status and the member `dtm_result` count.",
    ),
    ours(
        "WorkflowCallbackTimeout",
        Kind::Seconds,
        "30",
        "How long one callback that resumes a workflow may take, unless the workflow has a \
         `request_timeout`: it runs the rest of the workflow.",
    ),
    ours(
        "WorkflowCallbackGet",
        Kind::Bool,
        "false",
        "`true`: a workflow without input is called back over HTTP by GET, as DTM does. `false`: \
         always by POST, which is what resume routes are registered for.",
    ),
    ours(
        "CaFile",
        Kind::Text,
        "",
        "A PEM file of certificates to trust besides the system's, for `https://` and `grpcs://` \
         branches.",
    ),
    ours("BodyMaxBytes", Kind::Bytes, "1MiB", "The longest request body."),
    ours("HeaderMaxBytes", Kind::Bytes, "16KiB", "The longest request line and headers together."),
    ours("StepsMax", Kind::Integer, "1000", "The most steps in one submitted transaction."),
    ours(
        "BranchesMax",
        Kind::Integer,
        "4000",
        "The most branches of one transaction, however they come in.",
    ),
    ours("PayloadMaxBytes", Kind::Bytes, "256KiB", "The longest payload of one branch."),
    ours("ResponseMaxBytes", Kind::Bytes, "64KiB", "How much of a branch's answer is read."),
    ours(
        "ConnectionsMax",
        Kind::Integer,
        "10000",
        "The most connections from callers at a time; further ones are answered 503 and closed.",
    ),
    ours(
        "ActiveMax",
        Kind::Integer,
        "50000",
        "The most transactions worked on at a time because callers asked for it; those that only \
         wait for a time do not count. Requests past it are answered 503. Half as many more are \
         worked on because they are due.",
    ),
    ours(
        "MemoryMax",
        Kind::Bytes,
        "0",
        "From how much memory of the server's process on new transactions are answered 503, while \
         those that exist go on. 0: four fifths of what the machine or its control group has.",
    ),
    ours(
        "HeaderTimeout",
        Kind::Seconds,
        "10",
        "How long a caller may take to send the request line and headers.",
    ),
    ours("BodyTimeout", Kind::Seconds, "30", "How long a caller may take to send the body."),
    ours(
        "IdleTimeout",
        Kind::Seconds,
        "120",
        "How long a connection may wait for its next request; longer than the 90 s after which Go's \
         clients close theirs.",
    ),
    ours("WriteTimeout", Kind::Seconds, "30", "How long a caller may take to read the answer."),
    ours(
        "ShutdownTimeout",
        Kind::Seconds,
        "10",
        "How long requests and branch calls under way may take to end when the server is told \
         to stop. What is not done by then is done after the next start.",
    ),
    ours(
        "NetworkThreads",
        Kind::Integer,
        "0",
        "Threads for connections; 0 takes one for every processor.",
    ),
    dtm(
        "ConfigUpdateInterval",
        Kind::Seconds,
        "3",
        "How often topics are read again from the store.",
    ),
    dtm(
        "AlertRetryLimit",
        Kind::Integer,
        "3",
        "After how many failed tries of one branch the alert goes out.",
    ),
    dtm(
        "AlertWebHook",
        Kind::Secret,
        "",
        "The http or https URL that alerts are posted to; empty sends none.",
    ),
    ours(
        "AlertSecret",
        Kind::Secret,
        "",
        "The key of the header X-Dtmd-Signature: `sha256=` and the HMAC-SHA256 of the body in hex. \
         Empty signs nothing.",
    ),
    ours(
        "AlertStuckAfter",
        Kind::Seconds,
        "3600",
        "The age at which an unfinished transaction is alerted as stuck, once; a message's delay \
         does not count. 0 alerts none.",
    ),
    ours(
        "AlertRecovery",
        Kind::Bool,
        "true",
        "Whether the hook is told when what was alerted is over.",
    ),
    ours(
        "TracingEndpoint",
        Kind::Text,
        "",
        "The base URL of an OTLP collector, such as `http://localhost:4318`, that traces are sent to \
         over HTTP. Empty: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT`, and \
         without them nothing is traced.",
    ),
    ours(
        "TracingServiceName",
        Kind::Text,
        "",
        "The name of this service in traces. Empty: `OTEL_SERVICE_NAME`, or `dtmd`.",
    ),
    ours(
        "TracingHeaders",
        Kind::Secret,
        "",
        "Headers for the collector, `name=value` with commas between them. Empty: \
         `OTEL_EXPORTER_OTLP_HEADERS`.",
    ),
    ours(
        "TracingSamplePercent",
        Kind::Integer,
        "100",
        "Of so many percent of the transactions whose caller says no trace is one begun here. A \
         caller's own decision is kept.",
    ),
    dtm(
        "LogLevel",
        LEVELS,
        "info",
        "The least important level to log. The variable RUST_LOG, if set, wins.",
    ),
    ours("LogFormat", FORMATS, "text", "Lines for people, or one JSON object a line."),
    dtm(
        "Log.Outputs",
        Kind::Text,
        "stderr",
        "Where log lines go, separated by commas: `stderr`, `stdout`, or files, which are appended \
         to.",
    ),
    dtm(
        "Log.RotationEnable",
        Kind::Bool,
        "0",
        "Whether files of Log.Outputs are set aside when they are long, as Log.RotationConfigJSON \
         says.",
    ),
    dtm(
        "Log.RotationConfigJSON",
        Kind::Text,
        "{}",
        "A JSON object: `maxsize` (MB of one file, 100 if missing), `maxbackups` (files set aside \
         that are kept, 0 is all), `maxage` (days they are kept, 0 is for ever), `localtime` \
         (their names have local time, not UTC). `compress` is not in this build.",
    ),
    dtm(
        "TimeZoneOffset",
        Kind::Text,
        "",
        "The zone of times in answers, as whole hours from UTC: `+8`, `-3`. Empty is UTC.",
    ),
    ignored("UpdateBranchSync", Kind::Integer, "1", ALWAYS_SYNC),
    ignored("UpdateBranchAsyncGoroutineNum", Kind::Integer, "1", ALWAYS_SYNC),
    ignored("MicroService.Driver", Kind::Text, "default", NO_DISCOVERY),
    ignored("MicroService.Target", Kind::Secret, "", NO_DISCOVERY),
    ignored("MicroService.EndPoint", Kind::Text, "", NO_DISCOVERY),
    ignored("HttpMicroService.Driver", Kind::Text, "default", NO_DISCOVERY),
    ignored("HttpMicroService.RegistryType", Kind::Text, "", NO_DISCOVERY),
    ignored("HttpMicroService.RegistryAddress", Kind::Text, "", NO_DISCOVERY),
    ignored("HttpMicroService.RegistryOptions", Kind::Secret, "{}", NO_DISCOVERY),
    ignored("HttpMicroService.Target", Kind::Secret, "", NO_DISCOVERY),
    ignored("HttpMicroService.EndPoint", Kind::Text, "", NO_DISCOVERY),
    ignored("GrpcServiceConfig", Kind::Text, "", ROUND_ROBIN),
    ignored("GrpcBalancer", Kind::Text, "", "DTM does not read it either"),
];
