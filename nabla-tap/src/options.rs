//! What a new tap is to be like.

/// What a new tap is to be like.
///
/// ```
/// let options = nabla_tap::TapOptions::new().name("tap0").mtu(9000).owner(1000).persistent(true);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TapOptions {
    pub(crate) name: Option<String>,
    pub(crate) mtu: Option<u32>,
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) multi_queue: bool,
    pub(crate) persistent: bool,
}

impl TapOptions {
    /// A tap with a name that the kernel chooses, an MTU of 1500 bytes and one queue, which goes away with its last
    /// descriptor.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// # let _in_a_namespace = nabla_testkit::TestTap::new();
    /// use nabla_tap::{Tap, TapOptions};
    ///
    /// let tap = Tap::create(&TapOptions::new())?;
    /// assert_eq!(tap.mtu()?, Some(1500));
    /// # Ok::<(), nabla_tap::TapError>(())
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Its name: 1 to 15 bytes. With `%d` in it, the kernel puts the first free number there.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// # let _in_a_namespace = nabla_testkit::TestTap::new();
    /// use nabla_tap::{Tap, TapOptions};
    ///
    /// let tap = Tap::create(&TapOptions::new().name("tap%d"))?;
    /// assert_eq!(tap.name(), Some("tap0"));
    /// # Ok::<(), nabla_tap::TapError>(())
    /// ```
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Its MTU in bytes, from 68 to 65521.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// # let _in_a_namespace = nabla_testkit::TestTap::new();
    /// use nabla_tap::{Tap, TapOptions};
    ///
    /// let tap = Tap::create(&TapOptions::new().mtu(9000))?;
    /// assert_eq!(tap.mtu()?, Some(9000));
    /// # Ok::<(), nabla_tap::TapError>(())
    /// ```
    #[must_use]
    pub const fn mtu(mut self, bytes: u32) -> Self {
        self.mtu = Some(bytes);
        self
    }

    /// The user who may open it without any capability.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// # let _in_a_namespace = nabla_testkit::TestTap::new();
    /// use nabla_tap::{Tap, TapOptions};
    ///
    /// Tap::create(&TapOptions::new().name("tap0").owner(1000).persistent(true))?;
    /// // The user with the id 1000 can open it now, if /dev/net/tun is open to everybody.
    /// # Ok::<(), nabla_tap::TapError>(())
    /// ```
    #[must_use]
    pub const fn owner(mut self, user: u32) -> Self {
        self.owner = Some(user);
        self
    }

    /// The group whose members may open it without any capability.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// # let _in_a_namespace = nabla_testkit::TestTap::new();
    /// use nabla_tap::{Tap, TapOptions};
    ///
    /// Tap::create(&TapOptions::new().name("tap0").group(100).persistent(true))?;
    /// # Ok::<(), nabla_tap::TapError>(())
    /// ```
    #[must_use]
    pub const fn group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    /// Lets it be opened several times, each time for a queue of its own. Guests have one queue, and [`Tap::open`] does
    /// not open such a tap.
    ///
    /// [`Tap::open`]: crate::Tap::open
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// # let _in_a_namespace = nabla_testkit::TestTap::new();
    /// use nabla_tap::{Tap, TapErrorKind, TapOptions};
    ///
    /// let _tap = Tap::create(&TapOptions::new().name("tap0").multi_queue(true))?;
    /// assert!(matches!(Tap::open("tap0").unwrap_err().kind, TapErrorKind::NotATap));
    /// # Ok::<(), nabla_tap::TapError>(())
    /// ```
    #[must_use]
    pub const fn multi_queue(mut self, on: bool) -> Self {
        self.multi_queue = on;
        self
    }

    /// Makes it stay when no program has it open, until it is deleted.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// # let _in_a_namespace = nabla_testkit::TestTap::new();
    /// use nabla_tap::{Tap, TapOptions};
    ///
    /// drop(Tap::create(&TapOptions::new().name("tap0").persistent(true))?);
    /// assert!(Tap::open("tap0").is_ok());
    /// # Ok::<(), nabla_tap::TapError>(())
    /// ```
    #[must_use]
    pub const fn persistent(mut self, on: bool) -> Self {
        self.persistent = on;
        self
    }
}
