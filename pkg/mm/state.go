package mm

import (
	goContext "context"
	"fmt"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/checkpoint"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/state"

	"sentrymm/pkg/vmatree"
)

// A checkpoint holds both trees as lists. It is taken while no task runs, so
// nothing is frozen, nobody reads, and no identity waits to be released.

// InvalidateUnsavable has all Mappables invalidate what a checkpoint cannot hold, and gives spare pages back.
//
// Errors: what Mappables return.
//
// Preconditions: no task runs.
func (mm *MemoryManager) InvalidateUnsavable(ctx context.Context) error {
	mm.giveBack(mm.spares.takeAll())
	root, leave := mm.enter()
	defer leave(ctx)
	for _, v := range root.All() {
		if v.mappable == nil {
			continue
		}
		if err := v.mappable.InvalidateUnsavable(ctx); err != nil {
			return err
		}
	}
	return nil
}

// savedVMA is a vma in a checkpoint.
type savedVMA struct {
	start, end   uint64
	mappable     memmap.Mappable
	off          uint64
	flags        uint32
	mlockMode    memmap.MLockMode
	numaPolicy   linux.NumaPolicy
	numaNodemask uint64
	id           memmap.MappingIdentity
	name         string
	nameMut      memmap.NameMut
	space        *pendingSpace
	lastFault    uint64
}

// Flags of savedVMA and savedPMA. Each set of permissions takes three bits.
const (
	permBits = 3

	vmaPrivate   = 1 << (2*permBits + iota) // behind realPerms and maxPerms
	vmaGrowsDown = 1 << (2*permBits + iota)
	vmaStack     = 1 << (2*permBits + iota)
	vmaDontFork  = 1 << (2*permBits + iota)
)

const (
	pmaCOW     = 1 << (3*permBits + iota) // behind translate-, effective- and maxPerms
	pmaPrivate = 1 << (3*permBits + iota)
	pmaHuge    = 1 << (3*permBits + iota)
)

// packPerms puts sets of permissions into bits, the first one lowest.
func packPerms(sets ...hostarch.AccessType) uint32 {
	var bits uint32
	for i, p := range sets {
		for j, has := range []bool{p.Read, p.Write, p.Execute} {
			if has {
				bits |= 1 << (permBits*i + j)
			}
		}
	}
	return bits
}

// unpackPerms returns the i-th set.
func unpackPerms(bits uint32, i int) hostarch.AccessType {
	bits >>= permBits * i
	return hostarch.AccessType{Read: bits&1 != 0, Write: bits&2 != 0, Execute: bits&4 != 0}
}

// flagIf returns flag if set.
func flagIf(set bool, flag uint32) uint32 {
	if set {
		return flag
	}
	return 0
}

func (mm *MemoryManager) saveVMAs() []savedVMA {
	root := mm.vmas.Snapshot()
	saved := make([]savedVMA, 0, root.Len())
	for r, v := range root.All() {
		saved = append(saved, savedVMA{
			start:    r.Start,
			end:      r.End,
			mappable: v.mappable,
			off:      v.off,
			flags: packPerms(v.realPerms, v.maxPerms) |
				flagIf(v.private, vmaPrivate) |
				flagIf(v.growsDown, vmaGrowsDown) |
				flagIf(v.isStack, vmaStack) |
				flagIf(v.dontfork, vmaDontFork),
			mlockMode:    v.mlockMode,
			numaPolicy:   v.numaPolicy,
			numaNodemask: v.numaNodemask,
			id:           v.id,
			name:         v.name,
			nameMut:      v.nameMut,
			space:        v.space,
			lastFault:    uint64(v.hint.addr.Load()),
		})
	}
	return saved
}

// loadVMAs publishes the saved vmas and their counters.
func (mm *MemoryManager) loadVMAs(saved []savedVMA) {
	txn := mm.vmas.Begin(nil)
	var count counters
	for _, s := range saved {
		real := unpackPerms(s.flags, 0)
		v := &vma{
			mappable:       s.mappable,
			off:            s.off,
			realPerms:      real,
			effectivePerms: real.Effective(),
			maxPerms:       unpackPerms(s.flags, 1),
			private:        s.flags&vmaPrivate != 0,
			growsDown:      s.flags&vmaGrowsDown != 0,
			isStack:        s.flags&vmaStack != 0,
			dontfork:       s.flags&vmaDontFork != 0,
			mlockMode:      s.mlockMode,
			numaPolicy:     s.numaPolicy,
			numaNodemask:   s.numaNodemask,
			id:             s.id,
			name:           s.name,
			nameMut:        s.nameMut,
			space:          s.space,
			hint:           &faultHint{},
		}
		v.hint.addr.Store(uintptr(s.lastFault))
		r := vmatree.Range{Start: s.start, End: s.end}
		txn.Insert(r, v)
		count.add(v, r.Len())
	}
	txn.SetMeta(count)
	mm.vmas.Commit(txn)
}

// savedPMA is a pma in a checkpoint. Its file is a memory file: InvalidateUnsavable
// has removed all others.
type savedPMA struct {
	start, end uint64
	file       checkpoint.ResourceID
	off        uint64
	flags      uint32
}

func (mm *MemoryManager) savePMAs() []savedPMA {
	saved := make([]savedPMA, 0, mm.pmas.Len())
	for r, p := range mm.pmas.All() {
		mf, ok := p.file.(*pgalloc.MemoryFile)
		if !ok {
			panic(fmt.Sprintf("mm: a checkpoint cannot hold the pages at %v: they are in a %T", addrRange(r), p.file))
		}
		if !mf.IsSavable() {
			panic(fmt.Sprintf("mm: a checkpoint cannot hold the pages at %v: %v is not savable", addrRange(r), mf))
		}
		saved = append(saved, savedPMA{
			start: r.Start,
			end:   r.End,
			file:  mf.ResourceID(),
			off:   p.off,
			flags: packPerms(p.translatePerms, p.effectivePerms, p.maxPerms) |
				flagIf(p.needCOW, pmaCOW) |
				flagIf(p.private, pmaPrivate) |
				flagIf(p.huge, pmaHuge),
		})
	}
	return saved
}

// loadPMAs makes the set of pmas. The references on files were saved with those.
func (mm *MemoryManager) loadPMAs(ctx goContext.Context, saved []savedPMA) {
	mm.pmas = newPMASet()
	for _, s := range saved {
		p := &pma{
			file:           memoryFileFor(ctx, s.file),
			off:            s.off,
			translatePerms: unpackPerms(s.flags, 0),
			effectivePerms: unpackPerms(s.flags, 1),
			maxPerms:       unpackPerms(s.flags, 2),
			needCOW:        s.flags&pmaCOW != 0,
			private:        s.flags&pmaPrivate != 0,
			huge:           s.flags&pmaHuge != 0,
		}
		mm.pmas.Insert(vmatree.Range{Start: s.start, End: s.end}, p)
	}
}

// memoryFileFor returns the memory file that was saved as id.
func memoryFileFor(ctx goContext.Context, id checkpoint.ResourceID) *pgalloc.MemoryFile {
	if !id.Ok() {
		return pgalloc.MemoryFileFromContext(ctx)
	}
	mf, ok := pgalloc.MemoryFileMapFromContext(ctx)[id]
	if !ok {
		panic(fmt.Sprintf("mm: the checkpoint has pages in the memory file %q, which there is none of", id))
	}
	return mf
}

// StateTypeName implements state.Type.
func (*MemoryManager) StateTypeName() string { return "pkg/sentry/mm.MemoryManager" }

// StateFields implements state.Type.
func (*MemoryManager) StateFields() []string {
	return []string{"p", "layout", "users", "vmas", "brk", "defMLockMode", "pmas", "rss", "maxRSS", "hasPinned", "meta", "aio", "limits"}
}

// StateSave implements state.SaverLoader.
func (mm *MemoryManager) StateSave(sink state.Sink) {
	if mm.frozen != nil || mm.capture != nil || !mm.readers.idle() || !mm.spares.isEmpty() {
		panic("mm: saved in the middle of an operation")
	}
	sink.SaveValue(3, mm.saveVMAs())
	sink.SaveValue(6, mm.savePMAs())
	sink.SaveValue(7, mm.rss.Load())
	sink.SaveValue(8, mm.maxRSS.Load())
	sink.Save(0, &mm.p)
	sink.Save(1, &mm.layout)
	sink.Save(2, &mm.users)
	sink.SaveValue(4, mm.heap())
	sink.Save(5, &mm.defMLockMode)
	sink.Save(9, &mm.hasPinned)
	sink.Save(10, &mm.meta)
	sink.Save(11, &mm.aio)
	sink.SaveValue(12, mm.limits.Load())
}

// StateLoad implements state.SaverLoader.
func (mm *MemoryManager) StateLoad(ctx goContext.Context, src state.Source) {
	src.Load(0, &mm.p)
	src.Load(1, &mm.layout)
	src.Load(2, &mm.users)
	src.Load(5, &mm.defMLockMode)
	src.Load(9, &mm.hasPinned)
	src.Load(10, &mm.meta)
	src.Load(11, &mm.aio)
	src.LoadValue(3, new([]savedVMA), func(v any) { mm.loadVMAs(v.([]savedVMA)) })
	src.LoadValue(6, new([]savedPMA), func(v any) { mm.loadPMAs(ctx, v.([]savedPMA)) })
	src.LoadValue(4, new(hostarch.AddrRange), func(v any) { mm.setHeap(v.(hostarch.AddrRange)) })
	src.LoadValue(7, new(uint64), func(v any) { mm.rss.Store(v.(uint64)) })
	src.LoadValue(12, new(*limits.LimitSet), func(v any) { mm.limits.Store(v.(*limits.LimitSet)) })
	src.LoadValue(8, new(uint64), func(v any) { mm.maxRSS.Store(v.(uint64)) })
	src.AfterLoad(func() { mm.afterLoad(ctx) })
}

// afterLoad finds what the checkpoint does not hold.
func (mm *MemoryManager) afterLoad(ctx goContext.Context) {
	mm.mf = pgalloc.MemoryFileFromContext(ctx)
	mm.haveASIO = mm.p.SupportsAddressSpaceIO()
	if mm.users.Load() == 0 {
		return
	}
	as, err := mm.p.NewAddressSpace()
	if err != nil {
		panic(fmt.Sprintf("mm: no address space to restore into: %v", err))
	}
	mm.as = as
}

// StateTypeName implements state.Type.
func (*savedVMA) StateTypeName() string { return "pkg/sentry/mm.savedVMA" }

// StateFields implements state.Type.
func (*savedVMA) StateFields() []string {
	return []string{"start", "end", "mappable", "off", "flags", "mlockMode", "numaPolicy", "numaNodemask", "id", "name", "nameMut", "space", "lastFault"}
}

// fields returns pointers to all fields, in the order of StateFields.
func (s *savedVMA) fields() []any {
	return []any{&s.start, &s.end, &s.mappable, &s.off, &s.flags, &s.mlockMode, &s.numaPolicy, &s.numaNodemask, &s.id, &s.name, &s.nameMut, &s.space, &s.lastFault}
}

// StateSave implements state.SaverLoader.
func (s *savedVMA) StateSave(sink state.Sink) { saveFields(sink, s.fields()) }

// StateLoad implements state.SaverLoader.
func (s *savedVMA) StateLoad(_ goContext.Context, src state.Source) { loadFields(src, s.fields()) }

// StateTypeName implements state.Type.
func (*savedPMA) StateTypeName() string { return "pkg/sentry/mm.savedPMA" }

// StateFields implements state.Type.
func (*savedPMA) StateFields() []string { return []string{"start", "end", "file", "off", "flags"} }

func (s *savedPMA) fields() []any {
	return []any{&s.start, &s.end, &s.file, &s.off, &s.flags}
}

// StateSave implements state.SaverLoader.
func (s *savedPMA) StateSave(sink state.Sink) { saveFields(sink, s.fields()) }

// StateLoad implements state.SaverLoader.
func (s *savedPMA) StateLoad(_ goContext.Context, src state.Source) { loadFields(src, s.fields()) }

// StateTypeName implements state.Type.
func (*pendingSpace) StateTypeName() string { return "pkg/sentry/mm.pendingSpace" }

// StateFields implements state.Type.
func (*pendingSpace) StateFields() []string { return []string{"mm", "published", "kept"} }

func (s *pendingSpace) fields() []any { return []any{&s.mm, &s.published, &s.kept} }

// StateSave implements state.SaverLoader.
func (s *pendingSpace) StateSave(sink state.Sink) { saveFields(sink, s.fields()) }

// StateLoad implements state.SaverLoader.
func (s *pendingSpace) StateLoad(_ goContext.Context, src state.Source) { loadFields(src, s.fields()) }

func saveFields(sink state.Sink, fields []any) {
	for i, f := range fields {
		sink.Save(i, f)
	}
}

func loadFields(src state.Source, fields []any) {
	for i, f := range fields {
		src.Load(i, f)
	}
}

func init() {
	state.Register((*MemoryManager)(nil))
	state.Register((*savedVMA)(nil))
	state.Register((*savedPMA)(nil))
	state.Register((*pendingSpace)(nil))
}
