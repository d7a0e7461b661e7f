//! What a guest is started with.

use crate::{
    backend::{Backend, Backends},
    confine::Identity,
    debug::{DebugOptions, core::CoreDirectory},
    device::{self, BlockDevice, Console, Consoles, DeviceSource, NetDevice},
    error::Error,
    guest::{Description, Guest, Output},
    image::{ImageSource, OpenImage},
    spec::{GuestSpec, Isolation, LaunchFailure, Supervision},
};
use nabla_core::{Abi, ByteSize, CommandLine, layout};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Memory of a guest unless [`GuestBuilder::memory`] sets it.
pub const DEFAULT_MEMORY: ByteSize = ByteSize::mib(512);

/// A guest that is being configured. [`Runtime::guest`](crate::Runtime::guest) makes one; [`Self::start`] starts it.
///
/// Nothing is opened or checked before that.
#[derive(Debug)]
#[must_use = "a guest does not run before start()"]
pub struct GuestBuilder {
    backends: Arc<Backends>,
    consoles: Arc<Consoles>,
    image: ImageSource,
    abi: Option<Abi>,
    memory: ByteSize,
    devices: Vec<(Option<String>, Box<dyn DeviceSource>)>,
    args: Vec<Vec<u8>>,
    console: Console,
    name: Option<String>,
    supervision: Option<Supervision>,
    exec_heap: bool,
    huge_pages: bool,
    dumpable: bool,
    isolation: Isolation,
    launch_failure: LaunchFailure,
    cores: Option<PathBuf>,
    debug: DebugOptions,
}

impl GuestBuilder {
    pub(crate) fn new(backends: Arc<Backends>, consoles: Arc<Consoles>, image: ImageSource) -> Self {
        Self {
            backends,
            consoles,
            image,
            abi: None,
            memory: DEFAULT_MEMORY,
            devices: Vec::new(),
            args: Vec::new(),
            console: Console::inherit(),
            name: None,
            supervision: None,
            exec_heap: false,
            huge_pages: false,
            dumpable: false,
            isolation: Isolation::default(),
            launch_failure: LaunchFailure { prefix: None, status: 125 },
            cores: None,
            debug: DebugOptions::default(),
        }
    }

    /// Memory of the guest: a multiple of 4 KiB, or of 2 MiB up to 4 GiB for virtual machines. [`DEFAULT_MEMORY`] unless set.
    /// Only what the guest touches is used.
    ///
    /// ```
    /// use nabla_monitor::{ByteSize, Runtime};
    ///
    /// let builder = Runtime::new().guest("app.nabla").memory(ByteSize::mib(64));
    /// ```
    pub fn memory(mut self, size: ByteSize) -> Self {
        self.memory = size;
        self
    }

    /// Attaches the guest's only block device.
    ///
    /// ```
    /// use nabla_monitor::{BlockDevice, Runtime};
    ///
    /// let builder = Runtime::new().guest("app.nabla").block(BlockDevice::new("rootfs.iso").read_only());
    /// ```
    pub fn block(self, device: impl Into<BlockDevice>) -> Self {
        self.device(None, device.into())
    }

    /// Attaches the block device that the guest calls `name`.
    ///
    /// ```
    /// use nabla_monitor::Runtime;
    ///
    /// let builder = Runtime::new().guest("app.nabla").block_device("system", "rootfs.iso").block_device("data", "data.img");
    /// ```
    pub fn block_device(self, name: impl Into<String>, device: impl Into<BlockDevice>) -> Self {
        self.device(Some(name.into()), device.into())
    }

    /// Attaches the guest's only network device.
    ///
    /// ```
    /// use nabla_monitor::Runtime;
    ///
    /// let builder = Runtime::new().guest("app.nabla").net("tap0");
    /// ```
    pub fn net(self, device: impl Into<NetDevice>) -> Self {
        self.device(None, device.into())
    }

    /// Attaches the network device that the guest calls `name`.
    ///
    /// ```
    /// use nabla_monitor::{MacAddress, NetDevice, Runtime};
    ///
    /// let builder = Runtime::new().guest("app.nabla")
    ///     .net_device("lan", "tap0")
    ///     .net_device("wan", NetDevice::from("tap1").mac(MacAddress([2, 0, 0, 0, 0, 1])));
    /// ```
    pub fn net_device(self, name: impl Into<String>, device: impl Into<NetDevice>) -> Self {
        self.device(Some(name.into()), device.into())
    }

    fn device(mut self, name: Option<String>, source: impl DeviceSource + 'static) -> Self {
        self.devices.push((name, Box::new(source)));
        self
    }

    /// Adds an argument. The guest gets all of them joined by spaces, at most 8191 bytes.
    ///
    /// ```
    /// use nabla_monitor::Runtime;
    ///
    /// let builder = Runtime::new().guest("app.nabla").arg("--port").arg("80"); // the guest gets "--port 80"
    /// ```
    pub fn arg(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.args.push(arg.as_ref().to_vec());
        self
    }

    /// Adds arguments.
    ///
    /// ```
    /// use nabla_monitor::Runtime;
    ///
    /// let builder = Runtime::new().guest("app.nabla").args(["--port", "80"]);
    /// ```
    pub fn args<I>(mut self, args: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_vec()));
        self
    }

    /// Where the guest's output goes. [`Console::inherit`] unless set.
    ///
    /// ```no_run
    /// use nabla_monitor::{Console, Runtime};
    ///
    /// let guest = Runtime::new().guest("app.nabla").console(Console::file("app.log")).start()?;
    /// guest.wait()?;
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    pub fn console(mut self, console: Console) -> Self {
        self.console = console;
        self
    }

    /// The name of the guest's process in `ps`; at most 15 bytes are shown. The image's file name unless set.
    ///
    /// ```
    /// use nabla_monitor::Runtime;
    ///
    /// let builder = Runtime::new().guest("app.nabla").name("web-1");
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Says which ABI an image without an ABI note has.
    ///
    /// ```
    /// use nabla_monitor::{Abi, Runtime};
    ///
    /// let builder = Runtime::new().guest("app.nabla").abi(Abi::SptV1);
    /// ```
    pub fn abi(mut self, abi: Abi) -> Self {
        self.abi = Some(abi);
        self
    }

    /// How closely the guest is watched. [`Supervision::Full`] unless set; where that is impossible and was not
    /// asked for, the guest starts without, and a warning is logged. Virtual machines tell everything in any case.
    ///
    /// ```
    /// use nabla_monitor::{Runtime, Supervision};
    ///
    /// let builder = Runtime::new().guest("app.nabla").supervision(Supervision::None);
    /// ```
    pub fn supervision(mut self, supervision: Supervision) -> Self {
        self.supervision = Some(supervision);
        self
    }

    /// Makes heap and stack executable, for guests that compile code at run time, and accepts images with
    /// segments that are writable and executable. Dangerous.
    ///
    /// ```
    /// use nabla_monitor::Runtime;
    ///
    /// let builder = Runtime::new().guest("app.nabla").exec_heap(true);
    /// ```
    pub fn exec_heap(mut self, allow: bool) -> Self {
        self.exec_heap = allow;
        self
    }

    /// Backs guest memory with huge pages where the kernel can: first touches get cheaper, the least memory used
    /// grows to 2 MiB for each place touched.
    ///
    /// ```
    /// use nabla_monitor::Runtime;
    ///
    /// let builder = Runtime::new().guest("app.nabla").huge_pages(true);
    /// ```
    pub fn huge_pages(mut self, on: bool) -> Self {
        self.huge_pages = on;
        self
    }

    /// Leaves the guest's process open to debuggers and core dumps of its own user.
    ///
    /// ```
    /// use nabla_monitor::Runtime;
    ///
    /// let builder = Runtime::new().guest("app.nabla").dumpable(true);
    /// ```
    pub fn dumpable(mut self, on: bool) -> Self {
        self.dumpable = on;
        self
    }

    /// Has a core dump written to `directory` when the guest crashes: aborts, faults, or is ended for a call that it may
    /// not make. See [`Guest::core`] for what became of it, and [`Guest::dump_core`] for one at any other time.
    ///
    /// The file is called `core.NAME.PID`, after the guest's [name](Self::name), and only this program's user can read it.
    /// It contains everything that the guest has in memory. The guest's process is open to debuggers of its user then.
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// let guest = Runtime::new().guest("app.nabla").core_dumps("/var/tmp").start()?;
    /// if let Some(path) = guest.core()? {
    ///     println!("{}: core in {}", guest.wait()?, path.display());
    /// }
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    pub fn core_dumps(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cores = Some(directory.into());
        self
    }

    /// Lets the guest be debugged. It waits at its first instruction until a debugger has connected.
    ///
    /// When the debugger leaves or is lost, the guest goes on, and another one may connect. Nothing of this costs a guest
    /// that is not debugged. [`Guest::pause`] should not be used meanwhile.
    ///
    /// ```no_run
    /// use nabla_monitor::{GdbListener, Runtime};
    ///
    /// let listener = GdbListener::tcp("127.0.0.1:0")?;
    /// println!("gdb app.nabla -ex 'target remote {listener}'");
    /// let guest = Runtime::new().guest("app.nabla").gdb(listener).start()?;
    /// guest.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "gdb")]
    pub fn gdb(mut self, listener: crate::GdbListener) -> Self {
        self.debug.gdb = Some(listener);
        self
    }

    /// More confinement: namespaces, another user, a cgroup.
    ///
    /// ```
    /// use nabla_monitor::{Identity, Isolation, Runtime};
    ///
    /// let mut isolation = Isolation::default();
    /// isolation.namespaces = true;
    /// isolation.identity = Some(Identity { uid: 65534, gid: 65534 });
    /// let builder = Runtime::new().guest("app.nabla").isolation(isolation);
    /// ```
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// What [`Self::exec`] does about a failure after it can no longer return: the text in front of the message
    /// (`nabla: NAME: ` unless set) and the exit status (125 unless set).
    ///
    /// ```
    /// use nabla_monitor::Runtime;
    ///
    /// let builder = Runtime::new().guest("app.nabla").launch_failure("my-tool: ", 1);
    /// ```
    pub fn launch_failure(mut self, prefix: impl Into<String>, status: u8) -> Self {
        self.launch_failure = LaunchFailure { prefix: Some(prefix.into()), status };
        self
    }

    /// Starts the guest.
    ///
    /// When this returns, everything that can fail has been done, and the guest's first instruction runs next, confined. (A
    /// guest that is a process may have two steps before it: unmapping the launcher, and loading the filter. They end the
    /// process if they fail.)
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// match Runtime::new().guest("app.nabla").start() {
    ///     Ok(guest) => println!("{}", guest.wait()?),
    ///     Err(error) => eprintln!("{error}. {}", error.advice().unwrap_or_default()),
    /// }
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Whatever is wrong with image, devices, settings or host, as one clear sentence. Nothing is left behind.
    pub fn start(self) -> Result<Guest, Error> {
        self.launch(false)
    }

    /// Runs the guest to its end, and collects what it writes: to a [pipe](Console::pipe), whatever was set as its console.
    /// As [`Command::output`](std::process::Command::output); see [`Guest::wait_with_output`].
    ///
    /// ```no_run
    /// let output = nabla_monitor::Runtime::new().guest("app.nabla").arg("--version").output()?;
    /// println!("{}: {}", output.status, String::from_utf8_lossy(&output.console));
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::start`] and [`Guest::wait_with_output`].
    pub fn output(self) -> Result<Output, Error> {
        self.console(Console::pipe()).start()?.wait_with_output()
    }

    /// Replaces the calling process with the guest: the same process id, the same standard output, and nothing
    /// of the calling program left. For command lines; supervision and a console with a reader make no sense then
    /// and are ignored.
    ///
    /// A guest that needs a virtual machine cannot take the place of a process, and one that is debugged or whose core is
    /// wanted needs this program. It is started instead, and returned; see [`Guest::confine_program`]. In a virtual machine,
    /// it ends as by SIGPIPE when it prints and its console has no reader any more, as a process would.
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// // It returns only if the guest is in a virtual machine, is debugged, or could not be started.
    /// let guest = Runtime::new().guest("app.nabla").exec()?;
    /// std::process::exit(guest.wait()?.shell_code().into());
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::start`]. Descriptors of the calling process may have been changed then, so all that it should do
    /// is to print the error and exit. What fails later, in the launcher, is printed to standard error by the
    /// launcher; see [`Self::launch_failure`].
    pub fn exec(self) -> Result<Guest, Error> {
        self.launch(true)
    }

    fn launch(self, exec: bool) -> Result<Guest, Error> {
        let (backends, consoles) = (Arc::clone(&self.backends), Arc::clone(&self.consoles));
        let (mut spec, console) = self.prepare()?;
        let abi = spec.image.image().abi();
        let backend = find_backend(&backends, &spec.image)?;
        let path = console.path().map(Path::to_owned);
        let console = console.open().map_err(|source| Error::Console { path, source })?;
        let drained = console
            .writer
            .map(|(reader, writer)| consoles.feed(reader, writer))
            .transpose()
            .map_err(|source| Error::Console { path: None, source })?;
        let devices = spec.devices.iter().map(|device| device.info.clone()).collect();
        let description = Description { name: spec.name.clone(), abi, devices };
        spec.dedicated = exec;
        let running = if exec {
            backend.exec(spec, console.descriptor)
        } else {
            backend.start(spec, console.descriptor)
        }?;
        Ok(Guest::new(running, console.reader, drained, description))
    }

    /// Opens and checks everything.
    fn prepare(self) -> Result<(GuestSpec, Console), Error> {
        let open = self.image.open(self.abi)?;
        let (image, path) = (open.image(), open.path());
        find_backend(&self.backends, &open)?;
        if !self.exec_heap
            && let Some(segment) =
                image.segments().iter().find(|s| s.permissions.is_writable_and_executable())
        {
            return Err(Error::WritableExecutable { path: path.to_owned(), index: segment.index });
        }
        layout::check_memory(image, self.memory)
            .map_err(|source| Error::Memory { path: path.to_owned(), source })?;
        let command_line = CommandLine::from_args(&self.args)?;
        let devices = device::attach(image.manifest(), self.devices)?;
        let name = self.name.unwrap_or_else(|| process_name(path));
        let mut debug = self.debug;
        if let Some(path) = self.cores {
            let directory = CoreDirectory::open(&path).and_then(|directory| {
                directory.check()?;
                Ok(directory)
            });
            debug.cores = Some(directory.map_err(|source| Error::CoreDirectory { path, source })?);
        }
        // setresuid(2) and setresgid(2) take it for "no change".
        if let Some(Identity { uid, gid }) = self.isolation.identity
            && (uid == u32::MAX || gid == u32::MAX)
        {
            return Err(Error::Identity { uid, gid });
        }
        if !debug.is_empty() {
            debug.devices = devices.iter().map(|device| device.info.to_string()).collect();
        }
        let spec = GuestSpec {
            image: open,
            command_line,
            memory: self.memory,
            devices,
            name,
            supervision: self.supervision,
            exec_heap: self.exec_heap,
            huge_pages: self.huge_pages,
            dumpable: self.dumpable,
            isolation: self.isolation,
            launch_failure: self.launch_failure,
            dedicated: false,
            debug,
        };
        Ok((spec, self.console))
    }
}

/// The backend for the image's ABI.
fn find_backend<'a>(backends: &'a Backends, image: &OpenImage) -> Result<&'a dyn Backend, Error> {
    let abi = image.image().abi();
    backends.get(abi).ok_or_else(|| Error::UnsupportedAbi {
        path: image.path().to_owned(),
        abi,
        supported: backends.abis(),
    })
}

fn process_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "nabla-guest".to_owned(), |name| name.to_string_lossy().into_owned())
}
