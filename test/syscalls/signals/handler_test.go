// A handler that maps the page and returns makes the access succeed; what the flags of the handler, the
// mask and the alternate stack do to it; and how a process ends that has no handler.
package signals

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// Flags of sigaction, which package unix has no names for.
const (
	saOnStack   = 0x08000000
	saRestorer  = 0x04000000
	saNoDefer   = 0x40000000
	saResetHand = 0x80000000
	saSigInfo   = 4
)

// An action is struct sigaction as the system call has it.
type action struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// A stack is stack_t.
type stack struct {
	base  uintptr
	flags int32
	_     int32
	size  uintptr
}

// parts is memory for the structures that a child passes to the kernel: shared, and made before the child.
type parts struct {
	action  action
	stack   stack
	mask    uint64
	noCores unix.Rlimit
}

// A patient is a child that is about to have a fault.
type patient struct {
	*kit.Actor
	a *kit.Arena
	*parts
}

// newPatient is a child with the stage, whose stores to page outerPage make the handler store to
// innerPage; -1 for none.
func newPatient(t *testing.T, outerPage, innerPage int) patient {
	t.Helper()
	a, _ := stage(t)
	p := patient{a: a, parts: (*parts)(unsafe.Pointer(unsafe.SliceData(kit.Shared(t, kit.PageSize))))}
	outer, inner = 0, 0
	if outerPage >= 0 {
		outer, inner = a.Page(outerPage), a.Page(innerPage)
	}
	p.Actor = kit.Fork(t)
	// No cores: their flag is in the wait status.
	require.True(t, p.Call(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CORE, uintptr(unsafe.Pointer(&p.noCores)), 0).OK())
	return p
}

// handle installs the handler, or another disposition, for both signals.
func (p patient) handle(t *testing.T, handler uintptr, flags uint64) {
	t.Helper()
	for _, signal := range []unix.Signal{unix.SIGSEGV, unix.SIGBUS} {
		// The way back from a handler is that of the one before.
		require.True(t, p.Call(unix.SYS_RT_SIGACTION, uintptr(signal), 0, uintptr(unsafe.Pointer(&p.action)), 8).OK())
		p.action = action{handler: handler, flags: flags | p.action.flags&saRestorer, restorer: p.action.restorer}
		require.True(t, p.Call(unix.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(&p.action)), 0, 8).OK())
	}
}

// mended is how often its handler has mapped a page.
func (p patient) mended() uint64 { return p.Load64(uintptr(unsafe.Pointer(&mended))).Value }

// diesOf claims that a store kills the process.
func (p patient) diesOf(t *testing.T, signal unix.Signal, page int) {
	t.Helper()
	access := p.Store(p.a.Page(page), 1)
	require.Equal(t, unix.SIGKILL, access.Signal, "it lives on: %v", access)
	status := p.Reap(t)
	require.True(t, status.Signaled())
	assert.Equal(t, unix.SignalName(signal), unix.SignalName(status.Signal()))
	assert.False(t, status.CoreDump())
}

var faults = []struct {
	name   string
	page   int
	signal unix.Signal
}{
	{"hole", hole, unix.SIGSEGV},
	{"none", none, unix.SIGSEGV},
	{"read-only", readOnly, unix.SIGSEGV},
	{"beyond-eof", fileEnd, unix.SIGBUS},
	{"cut-off", cutEnd, unix.SIGBUS},
}

func TestHandlerMapsThePageAndReturns(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			p := newPatient(t, -1, -1)
			p.handle(t, mendHandlerPC(), saSigInfo|saOnStack)
			require.False(t, p.Store(p.a.Page(f.page)+3, 9).Faulted())
			assert.Equal(t, kit.Access{Value: 9}, p.Load(p.a.Page(f.page)+3))
			assert.EqualValues(t, 1, p.mended(), "one fault, one signal")
		})
	}
}

// A store over a border of two bad pages needs both, one signal each.
func TestHandlerMapsBothPages(t *testing.T) {
	p := newPatient(t, -1, -1)
	p.handle(t, mendHandlerPC(), saSigInfo|saOnStack)
	require.False(t, p.Store64(p.a.Page(none)-4, 0x1122334455667788).Faulted())
	assert.EqualValues(t, 0x1122334455667788, p.Load64(p.a.Page(none)-4).Value)
	assert.EqualValues(t, 2, p.mended())
}

func TestFaultWithoutHandlerKills(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler uintptr
	}{{"default", 0}, {"ignored", 1}} {
		for _, f := range faults {
			t.Run(c.name+"-"+f.name, func(t *testing.T) {
				p := newPatient(t, -1, -1)
				p.handle(t, c.handler, 0)
				p.diesOf(t, f.signal, f.page)
			})
		}
	}
}

// A blocked signal cannot wait when the access can neither go on.
func TestFaultWithBlockedSignalKills(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			p := newPatient(t, -1, -1)
			p.handle(t, mendHandlerPC(), saSigInfo|saOnStack)
			p.mask = 1<<(unix.SIGSEGV-1) | 1<<(unix.SIGBUS-1)
			require.True(t, p.Call(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&p.mask)), 0, 8).OK())
			p.diesOf(t, f.signal, f.page)
		})
	}
}

// The signals of others can be ignored and blocked.
func TestSentSignalsCanBeIgnored(t *testing.T) {
	p := newPatient(t, -1, -1)
	p.handle(t, 1, 0)
	require.NoError(t, unix.Kill(p.Pid(), unix.SIGSEGV))
	require.NoError(t, unix.Kill(p.Pid(), unix.SIGBUS))
	assert.Equal(t, kit.Access{Value: 'A'}, p.Load(p.a.Page(fileStart)), "it lives on")
}

// In a handler its own signal is blocked, so a second fault there kills, unless SA_NODEFER says that it is
// not.
func TestFaultInTheHandler(t *testing.T) {
	t.Run("kills", func(t *testing.T) {
		p := newPatient(t, hole, none)
		p.handle(t, mendHandlerPC(), saSigInfo|saOnStack)
		p.diesOf(t, unix.SIGSEGV, hole)
	})
	t.Run("with-SA_NODEFER", func(t *testing.T) {
		p := newPatient(t, hole, none)
		p.handle(t, mendHandlerPC(), saSigInfo|saOnStack|saNoDefer)
		require.False(t, p.Store(p.a.Page(hole), 5).Faulted())
		assert.Equal(t, kit.Access{Value: 5}, p.Load(p.a.Page(hole)))
		assert.Equal(t, kit.Access{Value: 7}, p.Load(p.a.Page(none)))
		assert.EqualValues(t, 2, p.mended())
	})
	t.Run("of-the-other-signal", func(t *testing.T) {
		p := newPatient(t, hole, fileEnd)
		p.handle(t, mendHandlerPC(), saSigInfo|saOnStack)
		require.False(t, p.Store(p.a.Page(hole), 5).Faulted())
		assert.EqualValues(t, 2, p.mended())
	})
}

func TestSA_RESETHANDHandlesOneFault(t *testing.T) {
	p := newPatient(t, -1, -1)
	p.handle(t, mendHandlerPC(), saSigInfo|saOnStack|saResetHand)
	require.False(t, p.Store(p.a.Page(hole), 5).Faulted())
	p.diesOf(t, unix.SIGSEGV, none)
}

// setStack makes so many pages of the arena the alternate stack.
func (p patient) setStack(t *testing.T, page, pages int) {
	t.Helper()
	p.stack = stack{base: p.a.Page(page), size: kit.Len(pages)}
	require.True(t, p.Call(unix.SYS_SIGALTSTACK, uintptr(unsafe.Pointer(&p.stack)), 0).OK())
}

// stackPages is enough for a frame with all registers of the machine.
const stackPages = 16

// withStackArea is a patient whose arena is followed by room for an alternate stack.
func withStackArea(t *testing.T, outerPage, innerPage int) (patient, int) {
	t.Helper()
	p := newPatient(t, outerPage, innerPage)
	at := stagePages + 2
	r := p.Mmap(p.a.Page(at), kit.Len(stackPages), kit.RW, anonymous, -1, 0)
	require.True(t, r.OK())
	return p, at
}

func TestAlternateStack(t *testing.T) {
	t.Run("good", func(t *testing.T) {
		p, at := withStackArea(t, -1, -1)
		p.setStack(t, at, stackPages)
		p.handle(t, mendHandlerPC(), saSigInfo|saOnStack)
		require.False(t, p.Store(p.a.Page(hole), 5).Faulted())
		assert.EqualValues(t, 1, p.mended())
	})
	for name, prot := range map[string]int{"read-only": unix.PROT_READ, "none": unix.PROT_NONE} {
		t.Run(name+"-kills", func(t *testing.T) {
			p, at := withStackArea(t, -1, -1)
			require.Zero(t, p.Mprotect(p.a.Page(at), kit.Len(stackPages), prot))
			p.setStack(t, at, stackPages)
			p.handle(t, mendHandlerPC(), saSigInfo|saOnStack)
			p.diesOf(t, unix.SIGSEGV, hole)
		})
	}
	t.Run("unmapped-kills", func(t *testing.T) {
		p, at := withStackArea(t, -1, -1)
		require.Zero(t, p.Munmap(p.a.Page(at), kit.Len(stackPages)))
		p.setStack(t, at, stackPages)
		p.handle(t, mendHandlerPC(), saSigInfo|saOnStack)
		p.diesOf(t, unix.SIGSEGV, hole)
	})
	t.Run("bad-kills-for-bus-too", func(t *testing.T) {
		p, at := withStackArea(t, -1, -1)
		require.Zero(t, p.Munmap(p.a.Page(at), kit.Len(stackPages)))
		p.setStack(t, at, stackPages)
		p.handle(t, mendHandlerPC(), saSigInfo|saOnStack)
		p.diesOf(t, unix.SIGSEGV, fileEnd)
	})
	// The handler faults before it mends, at the same page, and so on until there is no stack left.
	t.Run("overflow-kills", func(t *testing.T) {
		p, at := withStackArea(t, hole, hole)
		p.setStack(t, at, stackPages)
		p.handle(t, mendHandlerPC(), saSigInfo|saOnStack|saNoDefer)
		p.diesOf(t, unix.SIGSEGV, hole)
	})
	t.Run("too-small-is-refused", func(t *testing.T) {
		p, at := withStackArea(t, -1, -1)
		p.stack = stack{base: p.a.Page(at), size: 512}
		assert.Equal(t, unix.ENOMEM, p.Call(unix.SYS_SIGALTSTACK, uintptr(unsafe.Pointer(&p.stack)), 0).Errno)
	})
	t.Run("missing-pages-are-filled-in", func(t *testing.T) {
		p, at := withStackArea(t, -1, -1)
		require.Zero(t, p.Madvise(p.a.Page(at), kit.Len(stackPages), unix.MADV_DONTNEED))
		p.setStack(t, at, stackPages)
		p.handle(t, mendHandlerPC(), saSigInfo|saOnStack)
		require.False(t, p.Store(p.a.Page(none), 5).Faulted())
	})
}
