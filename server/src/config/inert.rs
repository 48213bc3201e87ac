//! Keys of ZooKeeper's that change nothing here, and why: so that a typing error still stands out
//! as unknown.
//!
//! A key whose absence would let somebody in or lose data does not belong here but in `draft`,
//! which refuses it. Source: administrator's guide of ZooKeeper 3.9, and the sample `zoo.cfg`s.

const JAVA: &str = "it tunes a part of the Java server that has no counterpart here";
const ADMIN: &str = "the admin server is not there yet";
const TLS: &str = "TLS is not there yet, and no port asks for it";
const SASL: &str = "SASL is not there yet, and nothing requires it";
const ENSEMBLE: &str = "it concerns ensembles of several servers, which are not served yet";
const METRICS: &str = "metrics providers are not there yet";
const AUDIT: &str = "the audit log is not there yet";
const THROTTLE: &str = "requests are bounded by number and bytes, connections by number";
const DIGEST: &str = "it concerns ZooKeeper's snapshot format";

/// Exact keys, without the prefix `zookeeper.`; sorted by reason, not by name.
const KEYS: &[(&str, &str)] = &[
    (
        "localSessionsEnabled",
        "every session is replicated and survives a change of servers",
    ),
    (
        "localSessionsUpgradingEnabled",
        "every session is replicated and survives a change of servers",
    ),
    (
        "emulate353TTLNodes",
        "it is a guard for upgrades from ZooKeeper 3.5.3",
    ),
    (
        "ensembleAuthName",
        "clients' ensemble names are not compared yet",
    ),
    (
        "allowSaslFailedClients",
        "SASL is not there yet, and nothing requires it",
    ),
    ("version", "it is the server that numbers configurations"),
    ("audit.enable", AUDIT),
    ("audit.impl.class", AUDIT),
    ("digest.enabled", DIGEST),
    ("serializeLastProcessedZxid.enabled", DIGEST),
    ("snapshot.compression.method", DIGEST),
    (
        "snapshot.trust.empty",
        "a missing snapshot is told from an empty directory here",
    ),
    (
        "superUser",
        "X.509 identities are not there yet; superDigest works",
    ),
    (
        "X509AuthenticationProvider.superUser",
        "X.509 identities are not there yet; superDigest works",
    ),
    ("IPAuthenticationProvider.usexforwardedfor", ADMIN),
    ("enforce.auth.schemes", SASL),
    ("requireClientAuthScheme", SASL),
    ("jaasLoginRenew", SASL),
    ("portUnification", TLS),
    ("sslQuorumReloadCertFiles", TLS),
    ("client.certReload", TLS),
    ("fips-mode", TLS),
    ("connectToLearnerMasterLimit", ENSEMBLE),
    ("observerMasterPort", ENSEMBLE),
    ("leaderServes", ENSEMBLE),
    ("syncEnabled", ENSEMBLE),
    ("oraclePath", ENSEMBLE),
    ("cnxTimeout", ENSEMBLE),
    ("quorumCnxnTimeoutMs", ENSEMBLE),
    ("electionPortBindRetry", ENSEMBLE),
    ("tcpKeepAlive", ENSEMBLE),
    ("commitLogCount", ENSEMBLE),
    ("request_throttle_max_requests", THROTTLE),
    ("request_throttle_stall_time", THROTTLE),
    ("request_throttle_drop_stale", THROTTLE),
    ("request_throttle_latency_check", THROTTLE),
    ("request_throttle_connection_check", THROTTLE),
    ("throttled_op_wait_time", THROTTLE),
    ("largeRequestMaxBytes", THROTTLE),
    ("largeRequestThreshold", THROTTLE),
    ("txnLogSizeLimitInKb", JAVA),
    ("fsync.warningthresholdms", JAVA),
    ("flushDelay", JAVA),
    ("maxWriteQueuePollTime", JAVA),
    ("maxBatchSize", JAVA),
    ("maxResponseCacheSize", JAVA),
    ("maxGetChildrenResponseCacheSize", JAVA),
    ("watchManagerName", JAVA),
    ("watcherCleanThreadsNum", JAVA),
    ("watcherCleanThreshold", JAVA),
    ("watcherCleanIntervalInSeconds", JAVA),
    ("maxInProcessingDeadWatchers", JAVA),
    ("bitHashCacheSize", JAVA),
    ("nio.numSelectorThreads", JAVA),
    ("nio.numWorkerThreads", JAVA),
    ("nio.directBufferBytes", JAVA),
    ("nio.shutdownTimeout", JAVA),
    ("clientTcpKeepAlive", JAVA),
    ("serverCnxnFactory", JAVA),
    ("jute.maxbuffer.extrasize", JAVA),
    ("intBufferStartingSizeBytes", JAVA),
    ("pathStats.slotCapacity", JAVA),
    ("warningThresholdMs", JAVA),
    ("jvm.pause.monitor", JAVA),
    ("jvm.pause.warn-threshold.ms", JAVA),
    ("jvm.pause.info-threshold.ms", JAVA),
    ("DigestAuthenticationProvider.superUser", JAVA),
];

/// Families of keys.
const PREFIXES: &[(&str, &str)] = &[
    ("admin.", ADMIN),
    ("metricsProvider.", METRICS),
    ("ssl.", TLS),
    (
        "authProvider",
        "it names a Java class; the schemes world, auth, digest and ip are built in",
    ),
    (
        "superUser.",
        "X.509 identities are not there yet; superDigest works",
    ),
    ("kerberos.", SASL),
    ("quorum.auth.", SASL),
    ("quorum.cnxn.threads.size", SASL),
    ("connection_throttle_", THROTTLE),
    ("request_throttler.", THROTTLE),
    ("commitProcessor.", JAVA),
    ("netty.", JAVA),
    ("messageTracker.", JAVA),
    ("leader.", ENSEMBLE),
    ("learner.", ENSEMBLE),
    ("follower.", ENSEMBLE),
    ("observer.", ENSEMBLE),
    ("fastleader.", ENSEMBLE),
    ("multiAddress.", ENSEMBLE),
    (
        "forward_learner_requests_to_commit_processor_disabled",
        ENSEMBLE,
    ),
];

/// Why `key` has no effect; None for one that ZooKeeper does not know either.
pub(super) fn reason(key: &str) -> Option<&'static str> {
    let exact = KEYS.iter().find(|(name, _)| *name == key);
    exact
        .or_else(|| PREFIXES.iter().find(|(prefix, _)| key.starts_with(prefix)))
        .map(|(_, reason)| *reason)
}
