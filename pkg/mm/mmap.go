package mm

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/rand"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel/shm"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// MMap creates a mapping as mmap(2) does and returns its first address.
//
// What opts.Unmap replaces is replaced in one step: no reader and no thread sees
// the range empty, and if MMap fails, the old mappings are untouched, down to
// their pages. With opts.RequirePlatformEffect the new mapping may be seen for a
// moment before it fails.
//
// Errors: EINVAL for a length of 0, an unaligned address or offset, or options
// that exclude each other; EOVERFLOW if the offset wraps around; EACCES for
// permissions beyond opts.MaxPerms; ENOMEM if there is no room, or RLIMIT_AS or
// RLIMIT_DATA forbid it; EEXIST for opts.NoReplace; EPERM and EAGAIN for
// RLIMIT_MEMLOCK; and what the Mappable's AddMapping returns.
func (mm *MemoryManager) MMap(ctx context.Context, opts memmap.MMapOpts) (hostarch.Addr, error) {
	if err := mm.checkMMapOpts(&opts); err != nil {
		return 0, err
	}
	mm.mappingMu.Lock()
	op := mm.begin(ctx)
	how := mm.populationOf(&opts)
	err := op.mapNew(&opts, how)
	addr := op.fresh.ar.Start
	mm.mappingMu.Unlock()
	op.finish()
	if err != nil {
		return 0, err
	}
	return addr, nil
}

// mapNew carries out the five steps for the mapping that opts ask for.
//
// Preconditions: mappingMu is locked. opts passed checkMMapOpts. The caller calls
// finish.
func (op *operation) mapNew(opts *memmap.MMapOpts, how *population) error {
	ar, err := op.mm.place(opts)
	if err != nil {
		op.abort()
		return err
	}
	locks := opts.MLockMode != memmap.MLockNone
	v := newVMA(opts)
	v.mlockMode = max(v.mlockMode, op.mm.defMLockMode)
	return op.mapVMA(ar, v, opts, locks, how)
}

// mapVMA is mapNew once it is known what goes where. locks is set if the caller
// asked for locking himself.
//
// Preconditions: as for mapNew.
func (op *operation) mapVMA(ar hostarch.AddrRange, v *vma, opts *memmap.MMapOpts, locks bool, how *population) error {
	if opts.Unmap {
		op.gather(ar)
	}
	err := op.check(v, uint64(ar.Length()), locks)
	if v.fixedSize() {
		v.mlockMode = memmap.MLockNone // but Linux, too, has asked for the limit by now
	}
	if err == nil {
		err = op.ask(ar, v)
	}
	if err != nil {
		op.abort()
		return err
	}
	op.insert(ar, v)
	if how != nil && !v.effectivePerms.Any() {
		how = nil // Linux does not populate what nobody can access
	}
	if how != nil && opts.RequirePlatformEffect && opts.PlatformEffect >= memmap.PlatformEffectPopulate {
		return op.installRequired(how)
	}
	if how != nil && how.isMuch(ar) {
		op.fresh.later, how = how, nil
	}
	op.install(how)
	op.complete()
	return nil
}

// checkMMapOpts refuses opts that make no sense and rounds the others to pages. If
// there are several things wrong, the error is the one that Linux returns.
func (mm *MemoryManager) checkMMapOpts(opts *memmap.MMapOpts) error {
	if opts.Length == 0 || !hostarch.Addr(opts.Offset).IsPageAligned() {
		return linuxerr.EINVAL
	}
	length, ok := hostarch.PageRoundUp(opts.Length)
	if !ok {
		return linuxerr.ENOMEM
	}
	opts.Length = length
	switch {
	case opts.Mappable == nil:
		opts.Offset = 0
	case opts.Offset+length < length:
		return linuxerr.EOVERFLOW
	}
	if !opts.Addr.IsPageAligned() {
		if opts.Fixed {
			if end, ok := opts.Addr.AddLength(length); !ok || end > mm.layout.MaxAddr {
				return linuxerr.ENOMEM
			}
			return linuxerr.EINVAL
		}
		opts.Addr = opts.Addr.RoundDown()
	}
	if opts.MaxPerms != opts.MaxPerms.Effective() {
		// Such a limit could not be enforced.
		panic("mm: MMapOpts.MaxPerms is not effective: " + opts.MaxPerms.String())
	}
	if _, ok := opts.Mappable.(*shm.Shm); ok && opts.Fixed {
		// shmat with SHM_REMAP, which replaces what is there. The sentry's shm package
		// does not say so.
		opts.Unmap = true
	}
	switch {
	case opts.Unmap && !opts.Fixed,
		opts.NoReplace && (!opts.Fixed || opts.Unmap):
		return linuxerr.EINVAL
	}
	return nil
}

// populationOf returns how the mapping that opts ask for is to be populated, or
// nil if it is not.
//
// Preconditions: mappingMu is locked.
func (mm *MemoryManager) populationOf(opts *memmap.MMapOpts) *population {
	switch {
	case opts.PlatformEffect >= memmap.PlatformEffectPopulate,
		max(opts.MLockMode, mm.defMLockMode) == memmap.MLockEager:
		return &population{effect: opts.PlatformEffect}
	case opts.Mappable == nil && opts.Length <= hostarch.HugePageSize:
		// Small anonymous mappings are going to be used soon, so this saves faults.
		// What a Mappable would charge for its pages is unknown, and memory of large
		// mappings that stays unused would end up in checkpoints.
		return &population{effect: memmap.PlatformEffectDefault}
	}
	return nil
}

// check refuses the vma v of n bytes, in the place of what was gathered: EPERM and
// EAGAIN for RLIMIT_MEMLOCK, EACCES for permissions beyond the vma's own, EINVAL if
// it is to grow and is not anonymous, ENOMEM for other limits, in this order.
//
// Like Linux (may_expand_vm, called with what is replaced taken off the length),
// it compares the growth of the address space with both RLIMIT_AS and RLIMIT_DATA.
//
// Preconditions: mappingMu is locked. locks is as for mapVMA.
func (op *operation) check(v *vma, n uint64, locks bool) error {
	if v.mlockMode != memmap.MLockNone {
		if err := op.checkLocked(n, op.before.Meta().locked-op.count.locked, locks); err != nil {
			return err
		}
	}
	switch {
	case !v.maxPerms.SupersetOf(v.realPerms):
		return linuxerr.EACCES
	case v.growsDown && (v.mappable != nil || v.id != nil):
		return linuxerr.EINVAL
	}
	return op.mayGrow(v, n)
}

// mayGrow returns ENOMEM if limits forbid n more bytes of v in the place of what
// was gathered.
func (op *operation) mayGrow(v *vma, n uint64) error {
	before := op.before.Meta()
	return mayExpand(op.mm.limitsOf(op.ctx), before, v, n-(before.as-op.count.as))
}

// checkLocked refuses n more bytes of locked memory, in the place of replaced, if
// RLIMIT_MEMLOCK forbids that.
func (op *operation) checkLocked(n, replaced uint64, locks bool) error {
	limit, limited := op.mm.lockLimit(op.ctx)
	switch {
	case !limited:
		return nil
	case locks && limit == 0:
		return linuxerr.EPERM
	case op.before.Meta().locked-replaced+n > limit:
		return linuxerr.EAGAIN
	}
	return nil
}

// mayExpand returns ENOMEM if limits forbid an address space of which c are the
// counters to grow by n bytes of v (Linux: may_expand_vm).
func mayExpand(l *limits.LimitSet, c counters, v *vma, n uint64) error {
	if beyondAS(l, c, n) || v.isData() && beyondData(l, c, n) {
		return linuxerr.ENOMEM
	}
	return nil
}

// beyondAS returns whether RLIMIT_AS forbids n bytes more.
func beyondAS(l *limits.LimitSet, c counters, n uint64) bool {
	return c.as+n > l.Get(limits.AS).Cur
}

// beyondData returns whether RLIMIT_DATA forbids n bytes of private data more. A soft limit of 0 means the hard one, for Valgrind's sake, which sets it so
// and counts by itself.
func beyondData(l *limits.LimitSet, c counters, n uint64) bool {
	data := l.Get(limits.Data)
	return c.data+n > data.Cur && (data.Cur != 0 || c.data+n > data.Max)
}

// installRequired is install and complete for a new mapping that counts only if
// all of it can be mapped. Everything old is kept until it is, and comes back if
// it cannot.
//
// Preconditions: mappingMu is locked.
func (op *operation) installRequired(how *population) error {
	mm, ar := op.mm, op.fresh.ar
	held := op.extra
	if len(op.gone) == 0 {
		op.addGone(gathered{ar: ar}) // nothing, but frozen like the rest
	}
	var kept []invalidation
	mm.activeMu.Lock()
	op.publish()
	for _, g := range op.gone {
		g.fz = mm.freezeRange(op, g.ar)
		g.fz.register = g.hasMappables()
		if g.pmas = mm.takePMAs(g.ar); g.pmas.Len() != 0 {
			g.fz.host = true
		}
	}
	mm.frozen.kept = &kept
	if op.fresh.pending != nil {
		op.fresh.pending.published.Store(true)
	}
	mm.activeMu.Unlock()
	for _, g := range op.gone {
		op.unmapPieces(g)
	}
	mm.endHost()

	if err := op.populateOwned(how); err != nil {
		op.rollback(held, &kept)
		return err
	}
	mm.activeMu.Lock()
	mm.frozen.kept = nil
	mm.activeMu.Unlock()
	op.complete()
	return nil
}

// populateOwned populates the new mapping, which is frozen.
//
// Preconditions: mappingMu is locked; activeMu is not.
func (op *operation) populateOwned(how *population) error {
	for rest := op.fresh.ar; rest.Length() != 0; {
		piece := op.mm.populateStep(rest)
		op.mm.activeMu.Lock()
		if err := op.mm.populatePiece(op.ctx, op.mm.vmas.Peek(), piece, *how, how.request(op)); err != nil {
			return err
		}
		rest.Start = piece.End
	}
	return nil
}

// rollback puts the old tree and the old pmas back. held are the references that
// the transaction took, kept the invalidations that came meanwhile.
//
// Preconditions: mappingMu is locked; activeMu is not. The tree is published, its
// ranges are frozen, and their old pages are not mapped by the host.
func (op *operation) rollback(held []memmap.MappingIdentity, kept *[]invalidation) {
	mm := op.mm
	mm.activeMu.Lock()
	failed := mm.takePMAs(op.fresh.ar)
	mm.activeMu.Unlock()
	mm.inSteps(&failed, op.fresh.ar)
	op.unregister()

	mm.activeMu.Lock()
	mm.vmas.Publish(op.before)
	for _, g := range op.gone {
		mm.putPMAs(&g.pmas, 0)
		g.fz.register = false
	}
	mm.frozen.kept = nil
	mm.activeMu.Unlock()
	// Who called these has been told that nobody can reach the pages any more, so
	// nobody must before they are done.
	for _, inv := range *kept {
		mm.invalidate(inv.ar, inv.opts, false)
	}
	mm.thaw()
	op.gone, op.undo, op.surplus = nil, []takenPMAs{failed}, held
	mm.validateIfEnabled()
}

// initialStack is how large the stack is when a program starts: what Linux adds to the
// arguments (setup_arg_pages), and a page for these. It grows from there.
const initialStack = 128<<10 + hostarch.PageSize

// MapStack maps a stack for the initial thread and returns its range. It grows when it
// is used, down to what RLIMIT_STACK allows then.
//
// Errors: ENOMEM if it does not fit or the limit is 0; otherwise as for MMap.
func (mm *MemoryManager) MapStack(ctx context.Context) (hostarch.AddrRange, error) {
	size := uint64(initialStack)
	if limit, ok := hostarch.PageRoundUp(limits.FromContext(ctx).Get(limits.Stack).Cur); ok {
		size = min(size, limit)
	}
	if size == 0 {
		return hostarch.AddrRange{}, linuxerr.ENOMEM
	}
	top := mm.layout.MaxAddr - hostarch.Addr(rand.Int63n(int64(mm.stackRand(ctx)))).RoundDown()
	if top < hostarch.Addr(size) {
		return hostarch.AddrRange{}, linuxerr.ENOMEM
	}
	mm.mappingMu.Lock()
	op := mm.begin(ctx)
	err := op.mapNew(&memmap.MMapOpts{
		Addr:      top - hostarch.Addr(size),
		Length:    size,
		Perms:     hostarch.ReadWrite,
		MaxPerms:  hostarch.AnyAccess,
		Private:   true,
		GrowsDown: true,
		Name:      "[stack]",
		NameMut:   memmap.NameMutAnon,
	}, nil)
	ar := op.fresh.ar
	mm.mappingMu.Unlock()
	op.finish()
	if err != nil {
		return hostarch.AddrRange{}, err
	}
	return ar, nil
}

// stackRoom is what is kept free below a stack at least (Linux: MIN_GAP).
const stackRoom = 128 << 20

// stackRand returns how far below the top of the address space the stack may begin. Other mappings lie below
// TopDownBase and never get into the room that it may grow into. The sentry's layout lets it begin
// anywhere in a terabyte, above other mappings or below: one stack in some thousand could not grow.
func (mm *MemoryManager) stackRand(ctx context.Context) uint64 {
	l := &mm.layout
	if l.DefaultDirection == arch.MmapBottomUp {
		return l.MaxStackRand // other mappings are far below
	}
	room := max(limits.FromContext(ctx).Get(limits.Stack).Cur, stackRoom)
	above := uint64(l.MaxAddr - l.TopDownBase)
	if above <= room {
		return 1
	}
	return min(l.MaxStackRand, above-room)
}
