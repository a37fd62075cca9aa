package mm

import (
	goctx "context"
	"fmt"

	"gvisor.dev/gvisor/pkg/atomicbitops"
	"gvisor.dev/gvisor/pkg/refs"
	"gvisor.dev/gvisor/pkg/state"
)

// SpecialMappableenableLogging switches on a log line with a stack trace for
// each change of a SpecialMappable's reference count. For debugging only.
//
// The odd names of this constant and of SpecialMappableobj are those that
// gVisor's template for reference counts makes; they are part of the API.
const SpecialMappableenableLogging = false

// SpecialMappableobj is always nil. Its type is what reference count messages
// call the counted object.
var SpecialMappableobj *SpecialMappable

// SpecialMappableRefs is the reference count of a SpecialMappable. It
// implements refs.CheckedObject, so that gVisor's leak checker finds counts that
// never reached zero.
//
// Once the count is zero it stays so: IncRef panics, TryIncRef returns false.
type SpecialMappableRefs struct {
	refCount atomicbitops.Int64
}

// InitRefs sets the count to one.
//
// Preconditions: nobody else uses r yet.
func (r *SpecialMappableRefs) InitRefs() {
	r.refCount.Store(1)
	refs.Register(r)
}

// RefType implements refs.CheckedObject.RefType.
func (r *SpecialMappableRefs) RefType() string {
	name := fmt.Sprintf("%T", SpecialMappableobj)
	return name[len("*"):]
}

// LeakMessage implements refs.CheckedObject.LeakMessage.
func (r *SpecialMappableRefs) LeakMessage() string {
	return fmt.Sprintf("%s at %p was not released: %d references are left", r.RefType(), r, r.ReadRefs())
}

// LogRefs implements refs.CheckedObject.LogRefs.
func (r *SpecialMappableRefs) LogRefs() bool {
	return SpecialMappableenableLogging
}

// ReadRefs returns the count, which may have changed by then.
func (r *SpecialMappableRefs) ReadRefs() int64 {
	return r.refCount.Load()
}

// IncRef implements refs.RefCounter.IncRef.
//
// Preconditions: the caller holds a reference, or keeps somebody else from
// dropping theirs.
func (r *SpecialMappableRefs) IncRef() {
	now := r.refCount.Add(1)
	r.log(refs.LogIncRef, now)
	if now < 2 {
		panic(fmt.Sprintf("reference taken on a released %s at %p", r.RefType(), r))
	}
}

// TryIncRef implements refs.TryRefCounter.TryIncRef.
func (r *SpecialMappableRefs) TryIncRef() bool {
	for {
		n := r.refCount.Load()
		if n == 0 {
			return false
		}
		if r.refCount.CompareAndSwap(n, n+1) {
			r.log(refs.LogTryIncRef, n+1)
			return true
		}
	}
}

// DecRef drops a reference. After the last one it calls destroy, if that is not
// nil.
func (r *SpecialMappableRefs) DecRef(destroy func()) {
	now := r.refCount.Add(-1)
	r.log(refs.LogDecRef, now)
	if now < 0 {
		panic(fmt.Sprintf("%s at %p has more references dropped than taken", r.RefType(), r))
	}
	if now > 0 {
		return
	}
	refs.Unregister(r)
	if destroy != nil {
		destroy()
	}
}

// log reports the new count to one of package refs' functions.
func (r *SpecialMappableRefs) log(report func(refs.CheckedObject, int64), now int64) {
	if SpecialMappableenableLogging {
		report(r, now)
	}
}

// StateTypeName implements state.Type.
func (*SpecialMappableRefs) StateTypeName() string {
	return "pkg/sentry/mm.SpecialMappableRefs"
}

// StateFields implements state.Type.
func (*SpecialMappableRefs) StateFields() []string {
	return []string{"refCount"}
}

// StateSave implements state.SaverLoader.
func (r *SpecialMappableRefs) StateSave(sink state.Sink) {
	sink.Save(0, &r.refCount)
}

// StateLoad implements state.SaverLoader.
func (r *SpecialMappableRefs) StateLoad(_ goctx.Context, source state.Source) {
	source.Load(0, &r.refCount)
	source.AfterLoad(func() {
		// The leak checker of this process has not met r yet.
		if r.ReadRefs() != 0 {
			refs.Register(r)
		}
	})
}

func init() {
	state.Register((*SpecialMappableRefs)(nil))
}
