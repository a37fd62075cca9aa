package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/kernel/shm"
)

// MUnmap removes all mappings of the length bytes from addr on, as munmap(2) does.
// When it returns, nobody can reach the pages.
//
// Errors: EINVAL for an unaligned address, a length of 0, or a range that does not
// lie below the end of what can be mapped.
func (mm *MemoryManager) MUnmap(ctx context.Context, addr hostarch.Addr, length uint64) error {
	addr = hostarch.UntaggedUserAddr(addr)
	rounded, ok := hostarch.PageRoundUp(length)
	if !ok || length == 0 || !addr.IsPageAligned() {
		return linuxerr.EINVAL
	}
	ar, ok := addr.ToRange(rounded)
	if !ok || ar.End > mm.layout.MaxAddr {
		return linuxerr.EINVAL
	}
	mm.mappingMu.Lock()
	op := mm.begin(ctx)
	op.unmap(ar)
	mm.mappingMu.Unlock()
	op.finish()
	return nil
}

// unmap carries out the steps for emptying ranges.
//
// Preconditions: mappingMu is locked. The caller calls finish.
func (op *operation) unmap(ranges ...hostarch.AddrRange) {
	for _, ar := range ranges {
		op.gather(ar)
	}
	op.install(nil)
	op.complete()
}

// DetachShm detaches the SysV shared memory segment that was attached at addr, as
// shmdt(2) does: all that is left of it, even if parts were unmapped or mapped
// over.
//
// Errors: EINVAL if addr is unaligned or no segment is attached there.
func (mm *MemoryManager) DetachShm(ctx context.Context, addr hostarch.Addr) error {
	if !addr.IsPageAligned() {
		return linuxerr.EINVAL
	}
	mm.mappingMu.Lock()
	parts := attachedAt(mm.vmas.Peek(), addr)
	if len(parts) == 0 {
		mm.mappingMu.Unlock()
		return linuxerr.EINVAL
	}
	op := mm.begin(ctx)
	op.unmap(parts...)
	mm.mappingMu.Unlock()
	op.finish()
	return nil
}

// attachedAt returns the ranges of the vmas that can come from an attach at addr:
// those that map one segment, each at the distance from addr that its offset says.
func attachedAt(root vmaSnapshot, addr hostarch.Addr) []hostarch.AddrRange {
	var segment *shm.Shm
	var parts []hostarch.AddrRange
	for c := root.LowerBound(uint64(addr)); c.Valid(); c.Next() {
		ar, v := addrRange(c.Range()), c.Value()
		if segment != nil && uint64(ar.End-addr) > segment.EffectiveSize() {
			break
		}
		s, ok := v.mappable.(*shm.Shm)
		if !ok || ar.Start < addr || uint64(ar.Start-addr) != v.off || segment != nil && s != segment {
			continue
		}
		segment = s
		parts = append(parts, ar)
	}
	return parts
}
