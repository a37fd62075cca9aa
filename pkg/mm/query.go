package mm

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/kernel/futex"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// The functions in this file read the published tree, or counters. They take no
// lock and wait for nobody, but for what GetSharedFutexKey asks of files.

// VirtualMemorySize returns the bytes of all mappings together.
func (mm *MemoryManager) VirtualMemorySize() uint64 {
	return mm.vmas.Snapshot().Meta().as
}

// VirtualMemorySizeRange returns how many bytes of ar are mapped.
func (mm *MemoryManager) VirtualMemorySizeRange(ar hostarch.AddrRange) uint64 {
	return mm.vmas.Snapshot().Covered(treeRange(ar))
}

// VirtualDataSize returns the bytes of private writable mappings that are not
// stacks.
func (mm *MemoryManager) VirtualDataSize() uint64 {
	return mm.vmas.Snapshot().Meta().data
}

// ResidentSetSize returns the bytes of all pages that the mappings have.
func (mm *MemoryManager) ResidentSetSize() uint64 {
	return mm.rss.Load()
}

// MaxResidentSetSize returns the most that ResidentSetSize has been, in bytes.
func (mm *MemoryManager) MaxResidentSetSize() uint64 {
	return mm.maxRSS.Load()
}

// FindVMAByName returns the start and the offset of the first vma that has the
// name, among those that begin in ar right from its start on without leaving it.
func (mm *MemoryManager) FindVMAByName(ar hostarch.AddrRange, name string) (hostarch.Addr, uint64, error) {
	root := mm.vmas.Snapshot()
	for c := root.LowerBound(uint64(ar.Start)); c.Valid(); c.Next() {
		start := hostarch.Addr(c.Range().Start)
		if !ar.Contains(start) {
			break
		}
		if v := c.Value(); v.name == name {
			return start, v.off, nil
		}
	}
	return 0, 0, fmt.Errorf("no mapping named %q begins in %v", name, ar)
}

// FindVMARange returns the range of the vma that contains addr.
//
// Errors: EFAULT if there is none.
func (mm *MemoryManager) FindVMARange(addr hostarch.Addr) (hostarch.AddrRange, error) {
	e, ok := mm.vmas.Snapshot().Find(uint64(addr))
	if !ok {
		return hostarch.AddrRange{}, linuxerr.EFAULT
	}
	return addrRange(e.Range), nil
}

// GetSharedFutexKey returns what identifies the futex at addr to all who share its
// memory. The caller owns the reference on the key's identity.
//
// It is the page that decides, as in Linux (get_futex_key): a page of a file is the
// file's for all who map it, also privately, until a write makes it a private one.
// Private pages that nobody can write to identify nothing.
//
// Errors: EFAULT if the four bytes at addr cannot be read, for lack of a file's page
// too, or are read-only and private.
//
// Preconditions: addr is a multiple of 4.
func (mm *MemoryManager) GetSharedFutexKey(ctx context.Context, addr hostarch.Addr) (futex.Key, error) {
	v, err := mm.futexVMA(ctx, addr)
	if err != nil {
		return futex.Key{}, err
	}
	id, off := v.vma.id, v.vma.offsetAt(v.ar.Start, addr)
	if id != nil && v.vma.mappable != nil {
		// Whether there is a page is for the file to say, however long that takes.
		page := memmap.MappableRange{Start: off &^ (hostarch.PageSize - 1)}
		page.End = page.Start + hostarch.PageSize
		if _, err := v.vma.mappable.Translate(ctx, page, page, hostarch.Read); err != nil {
			id.DecRef(ctx)
			return futex.Key{}, linuxerr.EFAULT
		}
	}
	if !v.vma.private || !v.vma.effectivePerms.Write {
		return futex.Key{Kind: futex.KindSharedMappable, Mappable: v.vma.mappable, MappingIdentity: id, Offset: off}, nil
	}
	if id != nil {
		id.DecRef(ctx)
	}
	return futex.Key{Kind: futex.KindSharedPrivate, Offset: uint64(addr)}, nil
}

// futexVMA returns the vma that has a futex at addr, with a reference on its identity.
func (mm *MemoryManager) futexVMA(ctx context.Context, addr hostarch.Addr) (vmatreeVMA, error) {
	ar, ok := addr.ToRange(4)
	if !ok {
		return vmatreeVMA{}, linuxerr.EFAULT
	}
	root, leave := mm.enter()
	defer leave(ctx)
	if _, err := reach(root, ar, hostarch.Read, false); err != nil {
		return vmatreeVMA{}, linuxerr.EFAULT
	}
	v := vmaAt(root, addr)
	if v.vma.private && !v.vma.effectivePerms.Write && (v.vma.mappable == nil || mm.hasPrivatePage(addr)) {
		return vmatreeVMA{}, linuxerr.EFAULT
	}
	if v.vma.id != nil {
		v.vma.id.IncRef()
	}
	return v, nil
}

// hasPrivatePage returns whether the page at addr is one that no file has.
func (mm *MemoryManager) hasPrivatePage(addr hostarch.Addr) bool {
	mm.activeMu.RLock()
	defer mm.activeMu.RUnlock()
	e, ok := mm.pmas.Find(uint64(addr))
	return ok && e.Value.private
}

// MSyncOpts are options of MSync.
type MSyncOpts struct {
	// Sync waits until what was written is stored (MS_SYNC).
	Sync bool

	// Invalidate fails on locked mappings (MS_INVALIDATE).
	Invalidate bool
}

// MSync stores what was written to shared mappings in a range, as msync(2) does.
//
// Errors: EINVAL for an unaligned address; ENOMEM if part of the range is not
// mapped, with the rest stored; EBUSY for a locked mapping with opts.Invalidate; and
// what storing fails with.
func (mm *MemoryManager) MSync(ctx context.Context, addr hostarch.Addr, length uint64, opts MSyncOpts) error {
	addr = hostarch.UntaggedUserAddr(addr)
	if !addr.IsPageAligned() {
		return linuxerr.EINVAL
	}
	// A length that overflows when rounded up is 0 to Linux.
	rounded, _ := hostarch.PageRoundUp(length)
	ar, ok := addr.ToRange(rounded)
	if !ok {
		return linuxerr.ENOMEM
	}
	hole := false
	for ar.Length() != 0 {
		next, skipped, err := mm.msyncOne(ctx, ar, opts)
		if err != nil {
			return err
		}
		hole = hole || skipped
		ar.Start = next
	}
	if hole {
		return linuxerr.ENOMEM
	}
	return nil
}

// msyncOne stores the first mapping in ar. It returns where to go on, and whether
// there are addresses before that which are not mapped.
//
// The Mappable is kept alive by a reference, not by the grace period: storing takes
// as long as it takes.
func (mm *MemoryManager) msyncOne(ctx context.Context, ar hostarch.AddrRange, opts MSyncOpts) (next hostarch.Addr, skipped bool, err error) {
	root, leave := mm.enter()
	c := root.LowerBound(uint64(ar.Start))
	if !c.Valid() || c.Range().Start >= uint64(ar.End) {
		leave(ctx)
		return ar.End, true, nil
	}
	v := vmatreeVMA{ar: addrRange(c.Range()), vma: c.Value()}
	part := v.ar.Intersect(ar)
	skipped = ar.Start < part.Start
	if opts.Invalidate && v.vma.mlockMode != memmap.MLockNone {
		leave(ctx)
		return 0, skipped, linuxerr.EBUSY
	}
	// Only shared mappings can have changed the file. That this one cannot be
	// written to now does not mean that it never could.
	id := v.vma.id
	if !opts.Sync || id == nil || v.vma.mappable == nil || v.vma.private {
		leave(ctx)
		return part.End, skipped, nil
	}
	id.IncRef()
	leave(ctx)
	defer id.DecRef(ctx)
	return part.End, skipped, id.Msync(ctx, v.vma.mappableRange(v.ar.Start, part))
}
