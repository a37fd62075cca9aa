package program

// An Op is what a step does.
type Op struct {
	Name string
	Args []*Kind
	// Weight is how often it is generated, relative to others.
	Weight int
}

// Access reports whether the step is a load, a store or a call, and no system call.
func (o *Op) Access() bool {
	return o == Load || o == Store || o == Load64 || o == Store64 || o == Exec || o == Fill
}

// Ops are all there are, in the order in which they were defined.
var Ops []*Op

var opByName = map[string]*Op{}

func op(weight int, name string, args ...*Kind) *Op {
	o := &Op{Name: name, Args: args, Weight: weight}
	Ops = append(Ops, o)
	opByName[name] = o
	return o
}

// Calls that change mappings. An address that the kernel chose goes into the slot.
var (
	Mmap     = op(160, "mmap", KindAddr, KindLen, KindProt, KindMap, KindHandle, KindOffset, KindSlot)
	Munmap   = op(60, "munmap", KindAddr, KindLen)
	Mremap   = op(90, "mremap", KindAddr, KindLen, KindLen, KindRemap, KindAddr, KindSlot)
	Mprotect = op(70, "mprotect", KindAddr, KindLen, KindProt)
	Brk      = op(12, "brk", KindAddr)
)

// Calls about mappings that stay.
var (
	Madvise    = op(45, "madvise", KindAddr, KindLen, KindAdvice)
	Mlock      = op(14, "mlock", KindAddr, KindLen)
	Mlock2     = op(8, "mlock2", KindAddr, KindLen, KindLock2)
	Munlock    = op(14, "munlock", KindAddr, KindLen)
	Mlockall   = op(4, "mlockall", KindLockAll)
	Munlockall = op(4, "munlockall")
	Msync      = op(10, "msync", KindAddr, KindLen, KindSync)
	Mincore    = op(6, "mincore", KindAddr, KindLen)
)

// SysV shared memory. Shmstat observes a segment's size and how often it is attached.
var (
	Shmget  = op(8, "shmget", KindSegment, KindLen)
	Shmat   = op(18, "shmat", KindSegment, KindAddr, KindAttach, KindSlot)
	Shmdt   = op(10, "shmdt", KindAddr)
	Shmrm   = op(3, "shmrm", KindSegment)
	Shmstat = op(6, "shmstat", KindSegment)
)

// Files and pipes. The addresses are buffers.
var (
	Ftruncate = op(16, "ftruncate", KindHandle, KindOffset)
	Fallocate = op(8, "fallocate", KindHandle, KindHole, KindOffset, KindOffset)
	Seal      = op(5, "seal", KindHandle, KindSeal)
	Pread     = op(12, "pread", KindHandle, KindAddr, KindLen, KindOffset)
	Pwrite    = op(12, "pwrite", KindHandle, KindAddr, KindLen, KindOffset)
	Read      = op(12, "read", KindHandle, KindAddr, KindLen)
	Write     = op(12, "write", KindHandle, KindAddr, KindLen)
	Readv     = op(5, "readv", KindHandle, KindAddr, KindLen, KindAddr, KindLen)
	Writev    = op(5, "writev", KindHandle, KindAddr, KindLen, KindAddr, KindLen)
)

// Processes and what they do to each other's memory.
var (
	Fork    = op(22, "fork", KindActor)
	Exit    = op(10, "exit")
	VMRead  = op(12, "vmread", KindActor, KindAddr, KindLen, KindAddr, KindLen)
	VMWrite = op(12, "vmwrite", KindActor, KindAddr, KindLen, KindAddr, KindLen)
)

// Futexes. Wait is for a value that may be there or not; if it is, it times out at once. Park is the
// wait of a thread that waits until it is woken, and does nothing else meanwhile.
var (
	FutexWait = op(6, "futexwait", KindAddr, KindNum, KindNum)
	FutexWake = op(8, "futexwake", KindAddr, KindNum, KindNum)
	Park      = op(7, "park", KindAddr, KindNum, KindNum)
	Requeue   = op(4, "requeue", KindAddr, KindNum, KindNum, KindAddr, KindNum)
)

// AIO. Submit waits for the operation to complete: 0 reads, 1 writes.
var (
	AIOSetup   = op(4, "aiosetup", KindContext, KindSlot)
	AIOSubmit  = op(8, "aiosubmit", KindContext, KindNum, KindHandle, KindAddr, KindLen, KindOffset)
	AIOEvents  = op(4, "aioevents", KindContext)
	AIODestroy = op(3, "aiodestroy", KindContext)
)

// Limit sets a soft limit: for locked memory to so many bytes, for others to so many more than are in use.
// A negative number is no limit.
var Limit = op(6, "limit", KindLimit, KindLen)

// Loads and stores. Fill stores in the first byte of each page the number, the number and one, and so on.
// Exec puts nothing there: what it calls is a return if ReturnCode was filled in before.
var (
	Load    = op(30, "load", KindAddr)
	Store   = op(70, "store", KindAddr, KindNum)
	Load64  = op(10, "load64", KindAddr)
	Store64 = op(20, "store64", KindAddr, KindNum)
	Fill    = op(60, "fill", KindAddr, KindLen, KindNum)
	Exec    = op(10, "exec", KindAddr)
)
