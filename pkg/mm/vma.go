package mm

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/kernel/shm"
	"gvisor.dev/gvisor/pkg/sentry/memmap"

	"sentrymm/pkg/vmatree"
)

// vma is a virtual memory area: what a range of addresses is mapped to. Its
// range is that of its entry in the tree.
//
// A vma is immutable once it is published. To change one, put an altered copy
// in its place.
type vma struct {
	// mappable is the object mapped; nil for private anonymous memory.
	mappable memmap.Mappable

	// off is the offset in mappable of the first address. Always page-aligned;
	// 0 if mappable is nil.
	off uint64

	// realPerms are the permissions the application asked for, effectivePerms
	// what they amount to (realPerms.Effective()), and maxPerms the most that
	// mprotect may ask for and that accesses which ignore permissions get.
	realPerms      hostarch.AccessType
	effectivePerms hostarch.AccessType
	maxPerms       hostarch.AccessType

	// private is MAP_PRIVATE: writes go to a copy.
	private bool

	// growsDown is MAP_GROWSDOWN, isStack MAP_STACK, dontfork MADV_DONTFORK.
	growsDown bool
	isStack   bool
	dontfork  bool

	// nameMut says whether the application may change name.
	nameMut memmap.NameMut

	mlockMode memmap.MLockMode

	// numaPolicy and numaNodemask are what mbind(2) set.
	numaPolicy   linux.NumaPolicy
	numaNodemask uint64

	// id keeps mappable alive and names it. Each vma in the published tree
	// holds a reference. May be nil.
	id memmap.MappingIdentity

	// name, if not empty, is shown in /proc/[pid]/maps in place of id's.
	name string

	// space is what the vma is registered under with its mappable if that is
	// not the MemoryManager; see pending.go.
	space *pendingSpace

	// hint is shared by all versions of a vma.
	hint *faultHint
}

// faultHint remembers the last address that faulted in a vma, to guess which
// way the application walks.
type faultHint struct {
	addr atomic.Uintptr

	// copied is where copy-on-write last made a copy since the process forked, and in the bits below a page how often it was near
	// the one before; 0 if nowhere.
	copied atomic.Uintptr
}

// mostNear is the most that copiesNear returns: by then a huge page is copied at once.
const mostNear = 5

// copiesNear notes that a copy is made at addr, and returns for how many copies the last one was near. Several at a
// time may count as one.
func (h *faultHint) copiesNear(addr hostarch.Addr) (n uintptr) {
	addr = addr.RoundDown()
	was := h.copied.Load()
	last := hostarch.Addr(was).RoundDown()
	if last != 0 && max(last, addr)-min(last, addr) <= hostarch.HugePageSize {
		n = min(was-uintptr(last)+1, mostNear)
	}
	h.copied.Store(uintptr(addr) + n)
	return n
}

// vmaSnapshot is one version of the tree of vmas and its counters.
type vmaSnapshot = vmatree.Snapshot[*vma, counters]

// vmaTxn is a transaction on the tree of vmas.
type vmaTxn = vmatree.Txn[*vma, counters]

// counters are sums over all vmas, in bytes. They are published together with
// the tree, so that no reader sees a tree and counters that disagree.
type counters struct {
	as     uint64 // all vmas
	locked uint64 // vmas with a lock mode
	data   uint64 // vmas that are private data, see isData
}

// add counts n bytes of v.
func (c *counters) add(v *vma, n uint64) {
	c.as += n
	if v.mlockMode != memmap.MLockNone {
		c.locked += n
	}
	if v.isData() {
		c.data += n
	}
}

// sub takes n bytes of v out of the count.
func (c *counters) sub(v *vma, n uint64) {
	c.as -= n
	if v.mlockMode != memmap.MLockNone {
		c.locked -= n
	}
	if v.isData() {
		c.data -= n
	}
}

// newVMA returns the vma that opts ask for. It does not take a reference on the
// identity.
func newVMA(opts *memmap.MMapOpts) *vma {
	return &vma{
		mappable:       opts.Mappable,
		off:            opts.Offset,
		realPerms:      opts.Perms,
		effectivePerms: opts.Perms.Effective(),
		maxPerms:       opts.MaxPerms,
		private:        opts.Private,
		growsDown:      opts.GrowsDown,
		isStack:        opts.Stack,
		mlockMode:      opts.MLockMode,
		numaPolicy:     linux.MPOL_DEFAULT,
		id:             opts.MappingIdentity,
		name:           opts.Name,
		nameMut:        opts.NameMut,
		hint:           &faultHint{},
	}
}

// canWriteMappable returns whether mappable can be modified through v, which is
// the writable argument of AddMapping and does not change while v lives. It is
// Linux's VM_SHARED.
func (v *vma) canWriteMappable() bool {
	return !v.private && v.maxPerms.Write
}

// isData returns whether v counts against RLIMIT_DATA: private, writable and
// not a stack (Linux: is_data_mapping).
func (v *vma) isData() bool {
	return v.private && v.realPerms.Write && !v.growsDown
}

// fixedSize returns whether mremap cannot make v larger, nor a second one like it
// (Linux: VM_DONTEXPAND).
func (v *vma) fixedSize() bool {
	switch v.mappable.(type) {
	case *SpecialMappable, *aioMappable:
		return true
	}
	return false
}

// permits returns nil if v allows accesses of type at, and otherwise what the
// access fails with. A debugger ignores permissions, but what others share is not
// his to write to (Linux: check_vma_flags).
func (v *vma) permits(at hostarch.AccessType, ignorePermissions bool) error {
	perms := v.effectivePerms
	if ignorePermissions {
		perms = v.maxPerms
		perms.Write = perms.Write && (v.private || v.effectivePerms.Write)
	}
	if !perms.SupersetOf(at) {
		return linuxerr.EPERM
	}
	return nil
}

// offsetAt returns the offset in v.mappable of addr, given that v begins at
// start.
func (v *vma) offsetAt(start, addr hostarch.Addr) uint64 {
	if v.mappable == nil {
		return 0
	}
	return v.off + uint64(addr-start)
}

// mappableRange returns the offsets of ar in v.mappable, given that v begins at
// start.
func (v *vma) mappableRange(start hostarch.Addr, ar hostarch.AddrRange) memmap.MappableRange {
	return memmap.MappableRange{Start: v.offsetAt(start, ar.Start), End: v.offsetAt(start, ar.Start) + uint64(ar.Length())}
}

// registeredWith returns the space that v is registered under with its
// mappable.
func (v *vma) registeredWith(mm *MemoryManager) memmap.MappingSpace {
	if v.space != nil {
		return v.space
	}
	return mm
}

// cutVMA returns the two parts of v, which covers r, on both sides of at. It
// leaves references to the caller.
func cutVMA(r vmatree.Range, v *vma, at uint64) (left, right *vma) {
	rest := *v
	rest.off = v.offsetAt(hostarch.Addr(r.Start), hostarch.Addr(at))
	return v, &rest
}

// joinVMAs returns the vma that l and r, which is right behind it, make
// together, if they are alike enough to be one. It leaves references to the
// caller.
func joinVMAs(lr vmatree.Range, l *vma, r *vma) (*vma, bool) {
	if l.mappable != nil && l.off+lr.Len() != r.off {
		return nil, false
	}
	// Everything but the offset and the hint has to be the same.
	want := *l
	want.off, want.hint = r.off, r.hint
	if want != *r {
		return nil, false
	}
	if l.hint.addr.Load() == 0 && r.hint.addr.Load() != 0 {
		joined := *l
		joined.hint = r.hint
		return &joined, true
	}
	return l, true
}

// countsAttachments returns whether v is a part of a SysV segment. Linux calls the
// segment's driver for each vma that comes or goes, and so merges none away
// (can_merge_remove_vma).
func (v *vma) countsAttachments() bool {
	_, segment := v.mappable.(*shm.Shm)
	return segment
}

// isHole returns whether err, which reach returned, means that nothing is mapped where
// it stopped.
func isHole(err error) bool { return linuxerr.Equals(linuxerr.EFAULT, err) }

// reach returns how far from ar.Start vmas without a gap permit accesses of type
// at. If that is short of ar.End, the error says why.
//
// Preconditions: ar is not empty.
func reach(root vmaSnapshot, ar hostarch.AddrRange, at hostarch.AccessType, ignorePermissions bool) (hostarch.Addr, error) {
	end := ar.Start
	for c := root.LowerBound(uint64(ar.Start)); c.Valid() && end < ar.End; c.Next() {
		r := addrRange(c.Range())
		if r.Start > end {
			return end, linuxerr.EFAULT
		}
		if err := c.Value().permits(at, ignorePermissions); err != nil {
			return end, err
		}
		end = r.End
	}
	if end < ar.End {
		return end, linuxerr.EFAULT
	}
	return ar.End, nil
}
