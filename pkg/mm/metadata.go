package mm

import (
	goctx "context"
	"slices"

	"gvisor.dev/gvisor/pkg/atomicbitops"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/state"
	"gvisor.dev/gvisor/pkg/sync"
)

// Dumpability is whether, and for whom, a core dump of the process may be
// written; see PR_SET_DUMPABLE in prctl(2).
type Dumpability int

// The values of Dumpability, numbered as prctl and /proc/sys/fs/suid_dumpable
// number them.
const (
	// NotDumpable forbids core dumps.
	NotDumpable Dumpability = iota

	// UserDumpable allows core dumps that belong to the process's user.
	UserDumpable

	// RootDumpable allows core dumps that only root may read.
	RootDumpable
)

// metadata is what a MemoryManager remembers of the process image on behalf of
// the loader, prctl(2), membarrier(2) and /proc/[pid]. Nothing in it affects a
// mapping.
type metadata struct {
	// dumpability holds a Dumpability. It is atomic because ptrace checks read it
	// under kernel.TaskSet.mu, where mu must not be taken.
	dumpability atomicbitops.Int32

	// membarrierPrivate and membarrierRSeq say whether the process registered
	// for these commands of membarrier(2).
	membarrierPrivate atomicbitops.Bool
	membarrierRSeq    atomicbitops.Bool

	// mu guards the fields below, each on its own: it promises nothing about
	// two of them together.
	mu sync.Mutex

	// argv and envv are where the arguments and the environment lie. The
	// application sets the four addresses one by one (PR_SET_MM), so they need
	// not be well-formed ranges.
	argv hostarch.AddrRange
	envv hostarch.AddrRange

	// auxv is the auxiliary vector. The slice is replaced, never written to.
	auxv arch.Auxv

	// executable is what /proc/[pid]/exe links to, or nil. The metadata holds a
	// reference.
	executable *vfs.FileDescription

	// vdsoSigReturn is the address of the vDSO's rt_sigreturn.
	vdsoSigReturn uint64
}

// init gives a new process image its defaults.
func (m *metadata) init() {
	m.dumpability.Store(int32(UserDumpable))
}

// forkInto makes child the metadata of a forked child. Registrations for
// membarrier are not inherited.
//
// The child holds a reference on the executable afterwards: if the fork fails
// later on, call child.release.
//
// Preconditions: nobody else uses child yet.
func (m *metadata) forkInto(child *metadata) {
	child.dumpability.Store(m.dumpability.Load())
	m.mu.Lock()
	defer m.mu.Unlock()
	child.argv, child.envv, child.vdsoSigReturn = m.argv, m.envv, m.vdsoSigReturn
	child.auxv = m.auxv // shared: never written to
	if m.executable != nil {
		m.executable.IncRef()
		child.executable = m.executable
	}
}

// release gives up the reference on the executable.
func (m *metadata) release(ctx context.Context) {
	m.replaceExecutable(ctx, nil)
}

// replaceExecutable sets the executable to fd, whose reference it takes over.
func (m *metadata) replaceExecutable(ctx context.Context, fd *vfs.FileDescription) {
	m.mu.Lock()
	old := m.executable
	m.executable = fd
	m.mu.Unlock()
	// The last reference may write the file back: not under mu.
	if old != nil {
		old.DecRef(ctx)
	}
}

// readField returns *field, which is guarded by m.mu.
func readField[T any](m *metadata, field *T) T {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *field
}

// writeField sets *field, which is guarded by m.mu.
func writeField[T any](m *metadata, field *T, to T) {
	m.mu.Lock()
	*field = to
	m.mu.Unlock()
}

// Dumpability returns whether core dumps may be written.
func (mm *MemoryManager) Dumpability() Dumpability {
	return Dumpability(mm.meta.dumpability.Load())
}

// SetDumpability changes what Dumpability returns.
func (mm *MemoryManager) SetDumpability(d Dumpability) {
	mm.meta.dumpability.Store(int32(d))
}

// ArgvStart returns the address of the first argument. It may lie behind
// ArgvEnd, if the application has set it so.
func (mm *MemoryManager) ArgvStart() hostarch.Addr {
	return readField(&mm.meta, &mm.meta.argv.Start)
}

// SetArgvStart changes what ArgvStart returns.
func (mm *MemoryManager) SetArgvStart(a hostarch.Addr) {
	writeField(&mm.meta, &mm.meta.argv.Start, a)
}

// ArgvEnd returns the address behind the last argument.
func (mm *MemoryManager) ArgvEnd() hostarch.Addr {
	return readField(&mm.meta, &mm.meta.argv.End)
}

// SetArgvEnd changes what ArgvEnd returns.
func (mm *MemoryManager) SetArgvEnd(a hostarch.Addr) {
	writeField(&mm.meta, &mm.meta.argv.End, a)
}

// EnvvStart returns the address of the first environment string. It may lie
// behind EnvvEnd, if the application has set it so.
func (mm *MemoryManager) EnvvStart() hostarch.Addr {
	return readField(&mm.meta, &mm.meta.envv.Start)
}

// SetEnvvStart changes what EnvvStart returns.
func (mm *MemoryManager) SetEnvvStart(a hostarch.Addr) {
	writeField(&mm.meta, &mm.meta.envv.Start, a)
}

// EnvvEnd returns the address behind the last environment string.
func (mm *MemoryManager) EnvvEnd() hostarch.Addr {
	return readField(&mm.meta, &mm.meta.envv.End)
}

// SetEnvvEnd changes what EnvvEnd returns.
func (mm *MemoryManager) SetEnvvEnd(a hostarch.Addr) {
	writeField(&mm.meta, &mm.meta.envv.End, a)
}

// Auxv returns a copy of the auxiliary vector.
func (mm *MemoryManager) Auxv() arch.Auxv {
	return slices.Clone(readField(&mm.meta, &mm.meta.auxv))
}

// SetAuxv replaces the auxiliary vector by a copy of auxv.
func (mm *MemoryManager) SetAuxv(auxv arch.Auxv) {
	writeField(&mm.meta, &mm.meta.auxv, slices.Clone(auxv))
}

// Executable returns the file that the process runs, with a reference for the
// caller, or nil.
func (mm *MemoryManager) Executable() *vfs.FileDescription {
	m := &mm.meta
	m.mu.Lock()
	defer m.mu.Unlock()
	fd := m.executable
	if fd != nil {
		// Under mu, or SetExecutable could drop the last reference first.
		fd.IncRef()
	}
	return fd
}

// SetExecutable makes fd the file that the process runs. It takes a reference of
// its own, and drops the one on the file before.
func (mm *MemoryManager) SetExecutable(ctx context.Context, fd *vfs.FileDescription) {
	fd.IncRef()
	mm.meta.replaceExecutable(ctx, fd)
}

// VDSOSigReturn returns the address of the vDSO's rt_sigreturn.
func (mm *MemoryManager) VDSOSigReturn() uint64 {
	return readField(&mm.meta, &mm.meta.vdsoSigReturn)
}

// SetVDSOSigReturn changes what VDSOSigReturn returns.
func (mm *MemoryManager) SetVDSOSigReturn(addr uint64) {
	writeField(&mm.meta, &mm.meta.vdsoSigReturn, addr)
}

// EnableMembarrierPrivate notes that the process has registered for
// MEMBARRIER_CMD_PRIVATE_EXPEDITED.
func (mm *MemoryManager) EnableMembarrierPrivate() {
	mm.meta.membarrierPrivate.Store(true)
}

// IsMembarrierPrivateEnabled returns whether EnableMembarrierPrivate was called.
func (mm *MemoryManager) IsMembarrierPrivateEnabled() bool {
	return mm.meta.membarrierPrivate.Load()
}

// EnableMembarrierRSeq notes that the process has registered for
// MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ.
func (mm *MemoryManager) EnableMembarrierRSeq() {
	mm.meta.membarrierRSeq.Store(true)
}

// IsMembarrierRSeqEnabled returns whether EnableMembarrierRSeq was called.
func (mm *MemoryManager) IsMembarrierRSeqEnabled() bool {
	return mm.meta.membarrierRSeq.Load()
}

// StateTypeName implements state.Type.
func (*metadata) StateTypeName() string {
	return "pkg/sentry/mm.metadata"
}

// StateFields implements state.Type. Its order is that of saved.
func (*metadata) StateFields() []string {
	return []string{"dumpability", "membarrierPrivate", "membarrierRSeq", "argv", "envv", "auxv", "executable", "vdsoSigReturn"}
}

// saved returns pointers to the fields that StateFields names.
func (m *metadata) saved() []any {
	return []any{&m.dumpability, &m.membarrierPrivate, &m.membarrierRSeq, &m.argv, &m.envv, &m.auxv, &m.executable, &m.vdsoSigReturn}
}

// StateSave implements state.SaverLoader.
func (m *metadata) StateSave(sink state.Sink) {
	for slot, field := range m.saved() {
		sink.Save(slot, field)
	}
}

// StateLoad implements state.SaverLoader.
func (m *metadata) StateLoad(_ goctx.Context, source state.Source) {
	for slot, field := range m.saved() {
		source.Load(slot, field)
	}
}

func init() {
	state.Register((*metadata)(nil))
}
