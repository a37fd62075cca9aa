package mm

import (
	"math"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"

	"sentrymm/pkg/vmatree"
)

// lockLimit returns how many bytes the caller may lock, and false if he may lock
// all he likes.
func (mm *MemoryManager) lockLimit(ctx context.Context) (uint64, bool) {
	if auth.CredentialsFromContext(ctx).HasRootCapability(linux.CAP_IPC_LOCK) {
		return math.MaxUint64, false
	}
	return mm.limitsOf(ctx).Get(limits.MemoryLocked).Cur, true
}

// withMode returns an altered v. What keeps its size is never locked, and nobody is
// told (Linux: VM_SPECIAL).
func withMode(mode memmap.MLockMode) func(vmatree.Range, *vma) (vma, error) {
	return func(_ vmatree.Range, v *vma) (vma, error) {
		n := *v
		if !v.fixedSize() {
			n.mlockMode = mode
		}
		return n, nil
	}
}

// MLock sets the lock mode of a range, as mlock(2), mlock2(2) and munlock(2) do,
// and with MLockEager populates it.
//
// Errors: EINVAL for a range that wraps around; EPERM and ENOMEM for RLIMIT_MEMLOCK;
// ENOMEM at the first address that is not mapped, with the mode set below it, or that
// nobody can access; EAGAIN if memory runs out.
func (mm *MemoryManager) MLock(ctx context.Context, addr hostarch.Addr, length uint64, mode memmap.MLockMode) error {
	addr = hostarch.UntaggedUserAddr(addr)
	// An end that overflows when rounded up to pages is 0 to Linux.
	rounded, _ := hostarch.PageRoundUp(length + addr.PageOffset())
	ar, ok := addr.RoundDown().ToRange(rounded)
	if !ok {
		return linuxerr.EINVAL
	}
	if err := mm.setLockMode(ctx, ar, mode); err != nil || mode != memmap.MLockEager {
		return err
	}
	return lockError(mm.populateLocked(ctx, ar))
}

// setLockMode is MLock without populating.
func (mm *MemoryManager) setLockMode(ctx context.Context, ar hostarch.AddrRange, mode memmap.MLockMode) error {
	mm.mappingMu.Lock()
	op := mm.begin(ctx)
	if mode != memmap.MLockNone {
		limit, limited := mm.lockLimit(ctx)
		var err error
		if limited && limit == 0 {
			err = linuxerr.EPERM
		} else if limited && op.count.locked+uint64(ar.Length())-lockedIn(op.before, ar) > limit {
			err = linuxerr.ENOMEM
		}
		if err != nil {
			op.abort()
			mm.mappingMu.Unlock()
			return err
		}
	}
	hole, _ := op.alter(ar, false, withMode(mode))
	op.publishAside()
	mm.validateIfEnabled()
	mm.mappingMu.Unlock()
	op.finish()
	if hole {
		return linuxerr.ENOMEM
	}
	return nil
}

// lockedIn returns how many bytes of ar are locked.
func lockedIn(root vmaSnapshot, ar hostarch.AddrRange) uint64 {
	var n uint64
	for r, v := range root.Within(treeRange(ar)) {
		if v.mlockMode != memmap.MLockNone {
			n += r.Intersect(treeRange(ar)).Len()
		}
	}
	return n
}

// populateLocked populates the vmas in ar; where nobody can access them, it stops
// with EFAULT (Linux: __mm_populate).
func (mm *MemoryManager) populateLocked(ctx context.Context, ar hostarch.AddrRange) error {
	for r, v := range mm.vmas.Snapshot().Within(treeRange(ar)) {
		if !v.effectivePerms.Any() {
			return linuxerr.EFAULT
		}
		if err := mm.populate(ctx, addrRange(r).Intersect(ar), population{effect: memmap.PlatformEffectCommit}); err != nil {
			return err
		}
	}
	return nil
}

// lockError returns what mlock(2) says for err (Linux: __mlock_posix_error_return).
func lockError(err error) error {
	_, beyondEnd := err.(*memmap.BusError)
	switch {
	case beyondEnd, linuxerr.Equals(linuxerr.EFAULT, err):
		return linuxerr.ENOMEM
	case linuxerr.Equals(linuxerr.ENOMEM, err):
		return linuxerr.EAGAIN
	}
	return err
}

// MLockAllOpts are options of MLockAll.
type MLockAllOpts struct {
	// Current changes the mode of all mappings there are, Future that of mappings
	// to come; without it, those are not locked. At least one has to be set.
	Current bool
	Future  bool

	// Mode is the mode they get.
	Mode memmap.MLockMode
}

// MLockAll sets lock modes, as mlockall(2) and munlockall(2) do, and with MLockEager
// populates what there is, as far as that succeeds.
//
// Errors: EINVAL if neither Current nor Future is set; EPERM and ENOMEM for
// RLIMIT_MEMLOCK.
func (mm *MemoryManager) MLockAll(ctx context.Context, opts MLockAllOpts) error {
	if !opts.Current && !opts.Future {
		return linuxerr.EINVAL
	}
	all := hostarch.AddrRange{End: ^hostarch.Addr(hostarch.PageSize - 1)}
	mm.mappingMu.Lock()
	op := mm.begin(ctx)
	if limit, limited := mm.lockLimit(ctx); limited && opts.Mode != memmap.MLockNone {
		var err error
		if limit == 0 {
			err = linuxerr.EPERM
		} else if opts.Current && op.count.as > limit {
			err = linuxerr.ENOMEM
		}
		if err != nil {
			op.abort()
			mm.mappingMu.Unlock()
			return err
		}
	}
	if opts.Current {
		op.alter(all, true, withMode(opts.Mode))
	}
	// A call that is not for the future ends what an earlier one was (Linux:
	// apply_mlockall_flags).
	mm.defMLockMode = memmap.MLockNone
	if opts.Future {
		mm.defMLockMode = opts.Mode
	}
	op.publishAside()
	mm.validateIfEnabled()
	mm.mappingMu.Unlock()
	op.finish()

	if opts.Current && opts.Mode == memmap.MLockEager {
		// Linux ignores what goes wrong here, and goes on.
		for r, v := range mm.vmas.Snapshot().All() {
			if v.effectivePerms.Any() {
				mm.populate(ctx, addrRange(r), population{effect: memmap.PlatformEffectCommit})
			}
		}
	}
	return nil
}
