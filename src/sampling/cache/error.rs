//! What can be wrong with a cache that somebody asks for.

/// A rejected cache. Each message says what was found, what was expected and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// A word that names no rule.
    #[error(
        "'{found}' is not a known cache, expected fbc, teacache, taylorseer, fora or magcache, \
         with settings after a colon (fbc:threshold=0.05), or off alone for no cache"
    )]
    Name {
        /// The word found.
        found: String,
    },

    /// Settings that are not `key=value`, or a key that the rule lacks.
    #[error(
        "'{found}' is not a setting of {cache}, which has {expected}: write key=value, with \
         commas between settings"
    )]
    Key {
        /// The rule's name.
        cache: &'static str,
        /// The setting found.
        found: String,
        /// The rule's keys.
        expected: &'static str,
    },

    /// A key that occurs more than once.
    #[error("{cache} has the setting {key} more than once: keep one of them")]
    Twice {
        /// The rule's name.
        cache: &'static str,
        /// The key.
        key: String,
    },

    /// A value that cannot be read, or lies outside its range.
    #[error("{cache} has {key}={found}, expected {expected}: for example {key}={example}")]
    Value {
        /// The rule's name.
        cache: &'static str,
        /// The key.
        key: &'static str,
        /// The value found.
        found: String,
        /// Its range, in words.
        expected: &'static str,
        /// A value that is accepted.
        example: &'static str,
    },

    /// A plain schedule whose length does not fit MagCache's ratios.
    #[error(
        "the plain schedule has {found} sigmas, expected {} (one for each of {steps} ratios, and \
         the 0 at the end): pass those of a plain run of {steps} steps",
        steps + 1
    )]
    PlainSigmas {
        /// Sigmas found.
        found: usize,
        /// The number of ratios.
        steps: usize,
    },
}
