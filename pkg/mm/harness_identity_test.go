package mm

import (
	goctx "context"
	"runtime/debug"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/state"
)

// testIdentity is a memmap.MappingIdentity that counts its references and fails
// the test if it is used after the last one was dropped. It starts with one
// reference, which belongs to the test, like an open file.
//
// hooks know its methods by their names: "IncRef", "DecRef", "MappedName",
// "DeviceID", "InodeID" and "Msync". The argument is nil.
type testIdentity struct {
	hooks
	w *world

	mu       sync.Mutex
	refs     int
	closed   bool // the test dropped its reference
	name     string
	dev, ino uint64

	// released is closed when the last reference is dropped; then onRelease is
	// called, if it is not nil.
	released  chan struct{}
	onRelease func()
}

// newTestIdentity returns an identity that /proc/[pid]/maps shows as name.
func newTestIdentity(t testing.TB, name string) *testIdentity {
	id := &testIdentity{w: worldOf(t), refs: 1, name: name}
	id.join()
	return id
}

// join makes id a part of its world.
func (id *testIdentity) join() {
	id.released = make(chan struct{})
	id.hooks.t = id.w.t
	enlist(id.w, &id.w.ids, id, &id.hooks.name, "id")
}

// use complains if id was released.
func (id *testIdentity) use(op string) {
	id.hit(op, nil)
	id.mu.Lock()
	defer id.mu.Unlock()
	id.useLocked(op)
}

func (id *testIdentity) useLocked(op string) {
	if id.refs <= 0 {
		id.t.Errorf("%s.%s after the last reference was dropped\n%s", id.hooks.name, op, debug.Stack())
	}
}

// IncRef implements memmap.MappingIdentity.
func (id *testIdentity) IncRef() {
	id.hit("IncRef", nil)
	id.mu.Lock()
	defer id.mu.Unlock()
	id.useLocked("IncRef")
	id.refs++
}

// DecRef implements memmap.MappingIdentity.
func (id *testIdentity) DecRef(context.Context) {
	id.hit("DecRef", nil)
	id.mu.Lock()
	id.useLocked("DecRef")
	id.refs--
	last := id.refs == 0
	id.mu.Unlock()
	if last {
		if id.onRelease != nil {
			id.onRelease()
		}
		close(id.released)
	}
}

// MappedName implements memmap.MappingIdentity.
func (id *testIdentity) MappedName(context.Context) string {
	id.use("MappedName")
	return id.name
}

// DeviceID implements memmap.MappingIdentity.
func (id *testIdentity) DeviceID() uint64 {
	id.use("DeviceID")
	return id.dev
}

// InodeID implements memmap.MappingIdentity.
func (id *testIdentity) InodeID() uint64 {
	id.use("InodeID")
	return id.ino
}

// Msync implements memmap.MappingIdentity.
func (id *testIdentity) Msync(context.Context, memmap.MappableRange) error {
	if err := id.hit("Msync", nil); err != nil {
		return err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.useLocked("Msync")
	return nil
}

// count returns the number of references, including the test's.
func (id *testIdentity) count() int {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.refs
}

// close drops the test's own reference, like close(2).
func (id *testIdentity) close() {
	id.mu.Lock()
	closed := id.closed
	id.closed = true
	id.mu.Unlock()
	if !closed {
		id.DecRef(context.Background())
	}
}

// isReleased returns whether the last reference was dropped.
func (id *testIdentity) isReleased() bool {
	select {
	case <-id.released:
		return true
	default:
		return false
	}
}

func (id *testIdentity) takeDown() {
	id.close()
	if n := id.count(); n != 0 {
		id.t.Errorf("%s has %d references too many at the end of the test", id.hooks.name, n)
	}
}

// StateTypeName implements state.Type.
func (*testIdentity) StateTypeName() string { return "pkg/sentry/mm.testIdentity" }

// StateFields implements state.Type.
func (*testIdentity) StateFields() []string {
	return []string{"world", "label", "refs", "closed", "name", "dev", "ino"}
}

// StateSave implements state.SaverLoader.
func (id *testIdentity) StateSave(sink state.Sink) {
	sink.SaveValue(0, id.w.key)
	for i, field := range []any{&id.hooks.name, &id.refs, &id.closed, &id.name, &id.dev, &id.ino} {
		sink.Save(i+1, field)
	}
}

// StateLoad implements state.SaverLoader. The loaded identity takes the place of
// the one that was saved.
func (id *testIdentity) StateLoad(_ goctx.Context, source state.Source) {
	for i, field := range []any{&id.hooks.name, &id.refs, &id.closed, &id.name, &id.dev, &id.ino} {
		source.Load(i+1, field)
	}
	source.LoadValue(0, new(int), func(key any) {
		id.w = worldNumber(key.(int))
		id.join()
	})
}

func init() {
	state.Register((*testIdentity)(nil))
}
