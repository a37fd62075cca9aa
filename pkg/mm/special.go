package mm

import (
	goctx "context"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/state"
)

// untracked makes a Mappable that does not note where it is mapped. It is an
// alias so that embedding it does not add an exported field.
type untracked = memmap.MappableNoTrackMappings

// SpecialMappable is a piece of sentry memory that applications can map without
// it being a file: the vDSO, its parameter page, kcov buffers. It is
// memmap.Mappable and memmap.MappingIdentity in one.
//
// It resembles what Linux maps by _install_special_mapping, but owns the memory.
// Offsets and length never change, so it has nothing to invalidate and needs
// not know its mappings.
type SpecialMappable struct {
	SpecialMappableRefs
	untracked

	// mf backs the memory and fr is where in mf it lies; a SpecialMappable that
	// has references holds one on fr.
	mf *pgalloc.MemoryFile
	fr memmap.FileRange

	// name is shown in /proc/[pid]/maps.
	name string
}

// NewSpecialMappable returns a SpecialMappable with one reference. It consists
// of the pages fr of mf and takes over the caller's reference on them.
// /proc/[pid]/maps shows its mappings under the given name.
//
// Preconditions: fr is page-aligned and not empty.
func NewSpecialMappable(name string, mf *pgalloc.MemoryFile, fr memmap.FileRange) *SpecialMappable {
	m := new(SpecialMappable)
	m.own(name, mf, fr)
	return m
}

// own initializes m; see NewSpecialMappable.
func (m *SpecialMappable) own(name string, mf *pgalloc.MemoryFile, fr memmap.FileRange) {
	m.mf, m.fr, m.name = mf, fr, name
	m.InitRefs()
}

// FileRange returns where in the memory file the contents lie.
func (m *SpecialMappable) FileRange() memmap.FileRange { return m.fr }

// Length returns the size in bytes.
func (m *SpecialMappable) Length() uint64 { return m.fr.Length() }

// DecRef implements memmap.MappingIdentity. With the last reference the memory
// goes.
func (m *SpecialMappable) DecRef(context.Context) {
	m.SpecialMappableRefs.DecRef(func() { m.mf.DecRef(m.fr) })
}

// MappedName implements memmap.MappingIdentity.
func (m *SpecialMappable) MappedName(context.Context) string { return m.name }

// DeviceID implements memmap.MappingIdentity. There is no file.
func (m *SpecialMappable) DeviceID() uint64 { return 0 }

// InodeID implements memmap.MappingIdentity. There is no file.
func (m *SpecialMappable) InodeID() uint64 { return 0 }

// Msync implements memmap.MappingIdentity. There is nothing to write back:
// Linux skips vmas without a vm_file.
func (m *SpecialMappable) Msync(context.Context, memmap.MappableRange) error { return nil }

// Translate implements memmap.Mappable. Accesses beyond the end get
// SIGBUS.
func (m *SpecialMappable) Translate(_ context.Context, required, optional memmap.MappableRange, _ hostarch.AccessType) ([]memmap.Translation, error) {
	all := memmap.MappableRange{End: m.Length()}
	var err error
	if !all.IsSupersetOf(required) {
		err = &memmap.BusError{Err: linuxerr.EFAULT}
	}
	if required.Start >= all.End {
		// A translation has to contain the first byte that is required.
		return nil, err
	}
	r := optional.Intersect(all)
	return []memmap.Translation{{Source: r, File: m.mf, Offset: m.fr.Start + r.Start, Perms: hostarch.AnyAccess}}, err
}

// StateTypeName implements state.Type.
func (*SpecialMappable) StateTypeName() string {
	return "pkg/sentry/mm.SpecialMappable"
}

// StateFields implements state.Type.
func (*SpecialMappable) StateFields() []string {
	return []string{"SpecialMappableRefs", "fr", "name"}
}

// StateSave implements state.SaverLoader. The contents are saved with the
// memory file.
func (m *SpecialMappable) StateSave(sink state.Sink) {
	sink.Save(0, &m.SpecialMappableRefs)
	sink.Save(1, &m.fr)
	sink.Save(2, &m.name)
}

// StateLoad implements state.SaverLoader.
func (m *SpecialMappable) StateLoad(ctx goctx.Context, source state.Source) {
	source.Load(0, &m.SpecialMappableRefs)
	source.Load(1, &m.fr)
	source.Load(2, &m.name)
	source.AfterLoad(func() { m.mf = pgalloc.MemoryFileFromContext(ctx) })
}

func init() {
	state.Register((*SpecialMappable)(nil))
}
