package mm

import (
	"fmt"
	"runtime/debug"
	"sort"
	"strings"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// hostMapping is a range of addresses that the host has mapped.
type hostMapping struct {
	hostarch.AddrRange
	file  memmap.File
	off   uint64
	perms hostarch.AccessType
}

// fileRange returns the offsets that ar, a part of m, is mapped to.
func (m hostMapping) fileRange(ar hostarch.AddrRange) memmap.FileRange {
	off := m.off + uint64(ar.Start-m.Start)
	return memmap.FileRange{Start: off, End: off + uint64(ar.Length())}
}

// hostModel is the set of a host's mappings, in order; neighbours that could be
// one are one.
type hostModel []hostMapping

// remove takes ar out and returns what was there.
func (h *hostModel) remove(ar hostarch.AddrRange) []hostMapping {
	var kept, gone []hostMapping
	for _, m := range *h {
		both := m.Intersect(ar)
		if both.Length() == 0 {
			kept = append(kept, m)
			continue
		}
		part := func(r hostarch.AddrRange) hostMapping {
			return hostMapping{r, m.file, m.fileRange(r).Start, m.perms}
		}
		if m.Start < both.Start {
			kept = append(kept, part(hostarch.AddrRange{Start: m.Start, End: both.Start}))
		}
		gone = append(gone, part(both))
		if both.End < m.End {
			kept = append(kept, part(hostarch.AddrRange{Start: both.End, End: m.End}))
		}
	}
	*h = kept
	return gone
}

// insert adds m, where nothing is.
func (h *hostModel) insert(m hostMapping) {
	all := append(*h, m)
	sort.Slice(all, func(i, j int) bool { return all[i].Start < all[j].Start })
	merged := all[:0]
	for _, m := range all {
		if n := len(merged); n != 0 {
			if l := &merged[n-1]; l.End == m.Start && l.file == m.file && l.perms == m.perms && l.off+uint64(l.Length()) == m.off {
				l.End = m.End
				continue
			}
		}
		merged = append(merged, m)
	}
	*h = merged
}

// asCall is a call to a platform.AddressSpace that maps or unmaps. It is what
// hooks on "MapFile" and "Unmap" are given.
type asCall struct {
	op        string
	ar        hostarch.AddrRange
	file      memmap.File
	off       uint64
	perms     hostarch.AccessType
	precommit bool
}

func (c asCall) String() string {
	if c.op == "Unmap" {
		return fmt.Sprintf("Unmap(%v)", c.ar)
	}
	return fmt.Sprintf("MapFile(%v, %#x, %v, precommit=%t)", c.ar, c.off, c.perms, c.precommit)
}

// recordingAS is a platform.AddressSpace that notes what it is told and knows
// what the host has mapped. It fails the test if it is used against its contract.
//
// hooks know "MapFile" and "Unmap", with an asCall, and "PreFork", "PostFork" and
// "Release". A hook that stops one of these runs before anything is changed.
type recordingAS struct {
	hooks
	w *world

	// real, if not nil, does what it is told to for real.
	real *realAS

	// lax switches off the check that mapped pages are referenced, for tests with
	// so many calls that it takes too long. Set it before use.
	lax bool

	mu       sync.Mutex
	model    hostModel
	calls    []asCall
	released bool

	platform.NoAddressSpaceIO
}

func newRecordingAS(t testing.TB) *recordingAS {
	as := &recordingAS{w: worldOf(t)}
	as.hooks.t = t
	as.hooks.name = as.w.name(as, "as")
	return as
}

// complain reports a misuse.
func (as *recordingAS) complain(format string, args ...any) {
	as.hooks.t.Errorf("%s: %s\n%s", as.hooks.name, fmt.Sprintf(format, args...), debug.Stack())
}

// MapFile implements platform.AddressSpace.MapFile.
func (as *recordingAS) MapFile(addr hostarch.Addr, f memmap.File, fr memmap.FileRange, at hostarch.AccessType, precommit bool) error {
	c := asCall{"MapFile", hostarch.AddrRange{Start: addr, End: addr + hostarch.Addr(fr.Length())}, f, fr.Start, at, precommit}
	switch {
	case !addr.IsPageAligned() || !hostarch.IsPageAligned(fr.Start) || !hostarch.IsPageAligned(fr.End):
		as.complain("%v is not aligned to pages", c)
	case !fr.WellFormed() || fr.Length() == 0:
		as.complain("%v maps nothing", c)
	case !at.Any():
		as.complain("%v allows no access", c)
	case c.ar.End <= c.ar.Start:
		as.complain("%v wraps around", c)
	}
	if err := as.hit("MapFile", c); err != nil {
		as.note(c)
		return err
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	as.calls = append(as.calls, c)
	as.mustLiveLocked(c)
	as.mustBeReferenced(c, f, fr)
	as.droppedLocked(c)
	as.model.insert(hostMapping{c.ar, f, fr.Start, at})
	if as.real != nil {
		return as.real.MapFile(addr, f, fr, at, precommit)
	}
	return nil
}

// Unmap implements platform.AddressSpace.Unmap.
func (as *recordingAS) Unmap(addr hostarch.Addr, length uint64) {
	c := asCall{op: "Unmap", ar: hostarch.AddrRange{Start: addr, End: addr + hostarch.Addr(length)}}
	switch {
	case !addr.IsPageAligned() || !hostarch.IsPageAligned(length):
		as.complain("%v is not aligned to pages", c)
	case length == 0:
		as.complain("%v unmaps nothing", c)
	case c.ar.End <= c.ar.Start:
		as.complain("%v wraps around", c)
	}
	as.hit("Unmap", c)
	as.mu.Lock()
	defer as.mu.Unlock()
	as.calls = append(as.calls, c)
	as.mustLiveLocked(c)
	as.droppedLocked(c)
	if as.real != nil {
		as.real.Unmap(addr, length)
	}
}

// note records a call that failed.
func (as *recordingAS) note(c asCall) {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.calls = append(as.calls, c)
}

// mustLiveLocked complains if as was released.
func (as *recordingAS) mustLiveLocked(c asCall) {
	if as.released {
		as.complain("%v after Release", c)
	}
}

// droppedLocked takes out of the model what c replaces or unmaps. The pages must
// have been referenced until now: otherwise the application could reach memory
// that belonged to somebody else.
func (as *recordingAS) droppedLocked(c asCall) {
	for _, m := range as.model.remove(c.ar) {
		as.mustBeReferenced(c, m.file, m.fileRange(m.AddrRange))
	}
}

// mustBeReferenced complains if pages of fr are free.
func (as *recordingAS) mustBeReferenced(c asCall, f memmap.File, fr memmap.FileRange) {
	if mf, ok := f.(*pgalloc.MemoryFile); ok && !as.lax {
		if free, ok := unreferenced(mf, fr); ok {
			as.complain("%v: pages %v are mapped, but nobody has a reference on them", c, free)
		}
	}
}

// Release implements platform.AddressSpace.Release.
func (as *recordingAS) Release() {
	as.hit("Release", nil)
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.released {
		as.complain("released twice")
	}
	as.released = true
	as.model = nil
	if as.real != nil {
		as.real.Release()
	}
}

// PreFork implements platform.AddressSpace.PreFork.
func (as *recordingAS) PreFork() { as.hit("PreFork", nil) }

// PostFork implements platform.AddressSpace.PostFork.
func (as *recordingAS) PostFork() {
	as.hit("PostFork", nil)
	if pre, post := as.count("PreFork"), as.count("PostFork"); post > pre {
		as.complain("PostFork was called %d times, PreFork %d times", post, pre)
	}
}

// history returns the calls since the last history or forget.
func (as *recordingAS) history() []asCall {
	as.mu.Lock()
	defer as.mu.Unlock()
	calls := as.calls
	as.calls = nil
	return calls
}

// forget drops the calls noted so far.
func (as *recordingAS) forget() { as.history() }

// mapped returns what the host has mapped in ar, clipped to it.
func (as *recordingAS) mapped(ar hostarch.AddrRange) []hostMapping {
	as.mu.Lock()
	defer as.mu.Unlock()
	copied := append(hostModel(nil), as.model...)
	return copied.remove(ar)
}

// mappedPages returns how many bytes of ar the host has mapped.
func (as *recordingAS) mappedPages(ar hostarch.AddrRange) uint64 {
	var n uint64
	for _, m := range as.mapped(ar) {
		n += uint64(m.Length())
	}
	return n
}

// at returns what the host has mapped at addr.
func (as *recordingAS) at(addr hostarch.Addr) (hostMapping, bool) {
	m := as.mapped(hostarch.AddrRange{Start: addr.RoundDown(), End: addr.RoundDown() + hostarch.PageSize})
	if len(m) == 0 {
		return hostMapping{}, false
	}
	return m[0], true
}

// everywhere is all addresses.
var everywhere = hostarch.AddrRange{Start: 0, End: ^hostarch.Addr(hostarch.PageSize - 1)}

// dump returns the model as text, a line for each mapping.
func (as *recordingAS) dump() []string {
	var lines []string
	for _, m := range as.mapped(everywhere) {
		lines = append(lines, fmt.Sprintf("%v %v %s", m.AddrRange, m.perms, fileString(as.w, m.file, m.fileRange(m.AddrRange))))
	}
	return lines
}

// callString returns calls as text, a line for each.
func callString(calls []asCall) string {
	var lines []string
	for _, c := range calls {
		lines = append(lines, c.String())
	}
	return strings.Join(lines, "\n")
}

// The AddressSpaceIO methods go to the real address space, which has to be one
// with memory behind it.

// CopyOut implements platform.AddressSpaceIO.CopyOut.
func (as *recordingAS) CopyOut(addr hostarch.Addr, src []byte) (int, error) {
	return as.real.CopyOut(addr, src)
}

// CopyIn implements platform.AddressSpaceIO.CopyIn.
func (as *recordingAS) CopyIn(addr hostarch.Addr, dst []byte) (int, error) {
	return as.real.CopyIn(addr, dst)
}

// ZeroOut implements platform.AddressSpaceIO.ZeroOut.
func (as *recordingAS) ZeroOut(addr hostarch.Addr, n uintptr) (uintptr, error) {
	return as.real.ZeroOut(addr, n)
}

// SwapUint32 implements platform.AddressSpaceIO.SwapUint32.
func (as *recordingAS) SwapUint32(addr hostarch.Addr, to uint32) (uint32, error) {
	return as.real.SwapUint32(addr, to)
}

// CompareAndSwapUint32 implements platform.AddressSpaceIO.CompareAndSwapUint32.
func (as *recordingAS) CompareAndSwapUint32(addr hostarch.Addr, from, to uint32) (uint32, error) {
	return as.real.CompareAndSwapUint32(addr, from, to)
}

// LoadUint32 implements platform.AddressSpaceIO.LoadUint32.
func (as *recordingAS) LoadUint32(addr hostarch.Addr) (uint32, error) {
	return as.real.LoadUint32(addr)
}
