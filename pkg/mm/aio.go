package mm

import (
	goctx "context"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/usage"
	"gvisor.dev/gvisor/pkg/state"
	"gvisor.dev/gvisor/pkg/sync"
	"gvisor.dev/gvisor/pkg/usermem"
)

// aioManager is the table of an address space's asynchronous I/O contexts.
type aioManager struct {
	mu sync.Mutex

	// contexts holds the contexts that io_submit and the like can name, by the
	// address of their ring, which is what applications know them by. Guarded
	// by mu. None of them is dead.
	contexts map[uint64]*AIOContext
}

// init makes the table ready for use.
func (a *aioManager) init() {
	a.contexts = make(map[uint64]*AIOContext)
}

// lookup returns the context that id names.
func (a *aioManager) lookup(id uint64) (*AIOContext, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.contexts[id]
	return c, ok
}

// insert makes c known as id.
//
// If another context is known by that name, its ring was unmapped behind its
// back, as nothing else can be mapped at id. Then nobody can name it any
// more, as in Linux, where the ring in memory tells contexts with the same
// address apart: what is pending in it is completed, and those who wait for it
// get it.
func (a *aioManager) insert(id uint64, c *AIOContext) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.contexts[id] = c
}

// rename makes the context with the given ring known as id, and as nothing
// else. It returns whether there is one.
func (a *aioManager) rename(ring *aioMappable, id uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for old, c := range a.contexts {
		if c.ring == ring {
			delete(a.contexts, old)
			a.contexts[id] = c
			return true
		}
	}
	return false
}

// remove takes the context that id names out of the table and returns it, or
// nil if there is none. Of concurrent callers one gets it.
func (a *aioManager) remove(id uint64) *AIOContext {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.contexts[id]
	delete(a.contexts, id)
	return c
}

// removeAll empties the table and returns what was in it.
func (a *aioManager) removeAll() map[uint64]*AIOContext {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.contexts
	a.init()
	return all
}

// AIOContext is an asynchronous I/O context, as io_setup(2) makes them: a
// number of requests that may be outstanding and a queue of those that
// are done.
//
// A request is outstanding from Prepare until its result is taken by PopRequest
// or thrown away by Drain, or until CancelPendingRequest.
type AIOContext struct {
	// ring identifies the memory that is mapped at the context's address. It
	// may be gone: the context has no reference on it.
	ring *aioMappable

	// limit is how many requests may be outstanding.
	limit uint32

	mu sync.Mutex

	// outstanding counts requests. Guarded by mu, like all that follows.
	outstanding uint32

	// done are the results of completed requests, oldest first. They are
	// included in outstanding.
	done []any

	// ready gets a token when a result is added; one token stands for any
	// number of results. It is closed and set to nil when the context is dead
	// and no request is outstanding.
	ready chan struct{}

	// dead is set when the context is destroyed.
	dead bool
}

// newAIOContext returns a context for up to limit requests.
func newAIOContext(ring *aioMappable, limit uint32) *AIOContext {
	return &AIOContext{ring: ring, limit: limit, ready: make(chan struct{}, 1)}
}

// kill makes the context dead: no further request can be prepared.
func (c *AIOContext) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	c.settleLocked(0)
}

// settleLocked counts n requests as no longer outstanding.
//
// Preconditions: c.mu is locked.
func (c *AIOContext) settleLocked(n uint32) {
	if n > c.outstanding {
		panic("AIOContext: more requests settled than prepared")
	}
	c.outstanding -= n
	if c.dead && c.outstanding == 0 && c.ready != nil {
		close(c.ready)
		c.ready = nil
	}
}

// Prepare makes room for a new request. It fails with EAGAIN if too many are
// outstanding, and with EINVAL if the context is dead.
func (c *AIOContext) Prepare() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.dead:
		// Destroyed after the caller had looked it up.
		return linuxerr.EINVAL
	case c.outstanding >= c.limit:
		return linuxerr.EAGAIN
	}
	c.outstanding++
	return nil
}

// PopRequest takes the oldest result out of the queue, if there is one. It does
// not wait.
func (c *AIOContext) PopRequest() (any, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.done) == 0 {
		return nil, false
	}
	result := c.done[0]
	c.done[0] = nil // or the array would keep it from being collected
	c.done = c.done[1:]
	c.settleLocked(1)
	return result, true
}

// FinishRequest completes a request: result goes into the queue.
func (c *AIOContext) FinishRequest(result any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = append(c.done, result)
	// The channel is open, since a request is outstanding.
	c.notifyLocked()
}

// notifyLocked puts a token into c.ready, if there is none.
//
// Preconditions: c.mu is locked.
func (c *AIOContext) notifyLocked() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// CancelPendingRequest gives up a request that was prepared and not finished.
func (c *AIOContext) CancelPendingRequest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked(1)
}

// Drain throws away all results. Requests that are not finished are not
// affected.
func (c *AIOContext) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := uint32(len(c.done))
	c.done = nil
	c.settleLocked(n)
}

// WaitChannel returns a channel that gets a token when a request is completed,
// or nil if the context is dead and no request is outstanding. The channel is
// closed when it comes to that.
func (c *AIOContext) WaitChannel() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

// Dead returns whether the context was destroyed.
func (c *AIOContext) Dead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

// aioRingSize is the size in bytes of the memory mapped for a context.
const aioRingSize = (linux.AIORingSize + hostarch.PageSize - 1) &^ (hostarch.PageSize - 1)

// maxAIOEvents is how many requests a context can have: Linux makes the ring twice as
// large as it is asked to, at 32 bytes each, and bounds that.
const maxAIOEvents = 0x10000000 / 32 / 2

// aioMappable is the memory mapped for a context. The sentry leaves it all zeroes: it
// does not keep a ring in it, and libaio, which looks for a magic number there, falls
// back to system calls.
type aioMappable struct {
	SpecialMappable
}

// Msync implements memmap.MappingIdentity. Linux's aio_ring_fops have no
// fsync.
func (r *aioMappable) Msync(context.Context, memmap.MappableRange) error {
	return linuxerr.EINVAL
}

// AddMapping implements memmap.Mappable.
func (r *aioMappable) AddMapping(_ context.Context, _ memmap.MappingSpace, ar hostarch.AddrRange, off uint64, _ bool) error {
	return wholeRing(ar, off)
}

// CopyMapping implements memmap.Mappable: a context's name is the
// address of its ring, so it moves with it (Linux: fs/aio.c:aio_ring_mremap).
func (r *aioMappable) CopyMapping(_ context.Context, ms memmap.MappingSpace, _, dst hostarch.AddrRange, off uint64, _ bool) error {
	if err := wholeRing(dst, off); err != nil {
		return err
	}
	// A forked child inherits the mapping, not the context.
	if mm, ok := ms.(*MemoryManager); !ok || !mm.aio.rename(r, uint64(dst.Start)) {
		return linuxerr.EINVAL
	}
	return nil
}

// wholeRing returns nil if ar, mapped to offset off, is all of a ring. Linux
// forbids anything else by VM_DONTEXPAND.
func wholeRing(ar hostarch.AddrRange, off uint64) error {
	if off == 0 && ar.Length() == aioRingSize {
		return nil
	}
	return linuxerr.EFAULT
}

// NewAIOContext makes an asynchronous I/O context for up to events outstanding
// requests, and maps a page that stands for its ring. It returns the context's
// id, which is the address of that page. It fails with EINVAL if events is 0 and
// with ENOMEM if there is no room.
//
// It is Linux's fs/aio.c:ioctx_alloc.
func (mm *MemoryManager) NewAIOContext(ctx context.Context, events uint32) (uint64, error) {
	switch {
	case events == 0, events > maxAIOEvents:
		return 0, linuxerr.EINVAL
	}
	fr, err := mm.mf.Allocate(aioRingSize, pgalloc.AllocOpts{Kind: usage.Anonymous, MemCgID: pgalloc.MemoryCgroupIDFromContext(ctx)})
	if err != nil {
		return 0, linuxerr.ENOMEM
	}
	ring := new(aioMappable)
	ring.own("/[aio] (deleted)", mm.mf, fr)
	defer ring.DecRef(ctx) // the mapping holds its own reference

	opts := memmap.MMapOpts{Length: aioRingSize, Mappable: ring, MappingIdentity: ring}
	opts.Perms, opts.MaxPerms = hostarch.ReadWrite, hostarch.ReadWrite
	addr, err := mm.MMap(ctx, opts)
	if err != nil {
		return 0, linuxerr.ENOMEM // whatever it was: aio_setup_ring
	}
	mm.aio.insert(uint64(addr), newAIOContext(ring, events))
	return uint64(addr), nil
}

// DestroyAIOContext destroys the context that id names and unmaps its ring. It
// returns the context, for the caller to wait until nothing is outstanding, or
// nil if there is none by that name.
func (mm *MemoryManager) DestroyAIOContext(ctx context.Context, id uint64) *AIOContext {
	if _, ok := mm.LookupAIOContext(ctx, id); !ok {
		return nil
	}
	// From here on id is nobody else's to destroy. If the application has mapped
	// something else over the ring, that is what gets unmapped, as in Linux.
	c := mm.aio.remove(id)
	if c != nil {
		c.kill()
		mm.MUnmap(ctx, hostarch.Addr(id), aioRingSize)
	}
	return c
}

// LookupAIOContext returns the context that id names. It fails if there is none,
// or if the memory at id cannot be read, which is where Linux would look for the
// context's number.
func (mm *MemoryManager) LookupAIOContext(ctx context.Context, id uint64) (*AIOContext, bool) {
	c, ok := mm.aio.lookup(id)
	if !ok {
		return nil, false
	}
	var number [4]byte
	if _, err := mm.CopyIn(ctx, hostarch.Addr(id), number[:], usermem.IOOpts{}); err != nil {
		return nil, false
	}
	return c, true
}

// destroyAIOContexts makes all contexts dead, when the address space has lost
// its last user. It does not wait for what is outstanding.
func (mm *MemoryManager) destroyAIOContexts(context.Context) {
	for _, c := range mm.aio.removeAll() {
		c.kill()
	}
}

// StateTypeName implements state.Type.
func (*aioManager) StateTypeName() string { return "pkg/sentry/mm.aioManager" }

// StateFields implements state.Type.
func (*aioManager) StateFields() []string { return []string{"contexts"} }

// StateSave implements state.SaverLoader.
func (a *aioManager) StateSave(sink state.Sink) { sink.Save(0, &a.contexts) }

// StateLoad implements state.SaverLoader.
func (a *aioManager) StateLoad(_ goctx.Context, source state.Source) { source.Load(0, &a.contexts) }

// StateTypeName implements state.Type.
func (*AIOContext) StateTypeName() string { return "pkg/sentry/mm.AIOContext" }

// StateFields implements state.Type.
func (*AIOContext) StateFields() []string {
	return []string{"ring", "limit", "outstanding", "done"}
}

// StateSave implements state.SaverLoader. A dead context is known only to those
// who wait for it, and they do not survive a save.
func (c *AIOContext) StateSave(sink state.Sink) {
	if c.dead {
		state.Failf("an AIOContext that was destroyed cannot be saved")
	}
	for slot, field := range []any{&c.ring, &c.limit, &c.outstanding, &c.done} {
		sink.Save(slot, field)
	}
}

// StateLoad implements state.SaverLoader.
func (c *AIOContext) StateLoad(_ goctx.Context, source state.Source) {
	for slot, field := range []any{&c.ring, &c.limit, &c.outstanding, &c.done} {
		source.Load(slot, field)
	}
	source.AfterLoad(func() {
		c.ready = make(chan struct{}, 1)
		if len(c.done) != 0 {
			c.notifyLocked()
		}
	})
}

// StateTypeName implements state.Type.
func (*aioMappable) StateTypeName() string { return "pkg/sentry/mm.aioMappable" }

// StateFields implements state.Type.
func (*aioMappable) StateFields() []string { return []string{"SpecialMappable"} }

// StateSave implements state.SaverLoader.
func (r *aioMappable) StateSave(sink state.Sink) { sink.Save(0, &r.SpecialMappable) }

// StateLoad implements state.SaverLoader.
func (r *aioMappable) StateLoad(_ goctx.Context, source state.Source) {
	source.Load(0, &r.SpecialMappable)
}

func init() {
	state.Register((*aioManager)(nil))
	state.Register((*AIOContext)(nil))
	state.Register((*aioMappable)(nil))
}
