package mm

import (
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// What calls cost beside what the host takes for them. docs/performance.md has the results.

// idleAS is an address space whose host does everything at once.
type idleAS struct{ platform.AddressSpace }

func (idleAS) MapFile(hostarch.Addr, memmap.File, memmap.FileRange, hostarch.AccessType, bool) error {
	return nil
}

func (idleAS) Unmap(hostarch.Addr, uint64) {}

// BenchmarkCalls makes calls in an address space of 200 mappings, as many as a program of middling size has.
func BenchmarkCalls(b *testing.B) {
	const size = 64 << 10
	anon := memmap.MMapOpts{Length: size, Private: true, Perms: hostarch.ReadWrite, MaxPerms: hostarch.AnyAccess}
	for _, call := range []struct {
		name string
		do   func(m *testMM, at hostarch.Addr, i int) error
	}{
		{"replace", func(m *testMM, at hostarch.Addr, _ int) error {
			opts := anon
			opts.Addr, opts.Fixed, opts.Unmap = at, true, true
			_, err := m.MMap(m.ctx, opts)
			return err
		}},
		{"mmap-munmap", func(m *testMM, _ hostarch.Addr, _ int) error {
			addr, err := m.MMap(m.ctx, anon)
			if err == nil {
				err = m.MUnmap(m.ctx, addr, size)
			}
			return err
		}},
		{"mprotect", func(m *testMM, at hostarch.Addr, i int) error {
			return m.MProtect(at, size, hostarch.AccessType{Read: true, Write: i%2 == 0}, false)
		}},
		{"mremap-move", func(m *testMM, at hostarch.Addr, i int) error {
			from, to := at, at+size
			if i%2 == 1 {
				from, to = to, from
			}
			_, err := m.MRemap(m.ctx, from, size, size, MRemapOpts{Move: MRemapMustMove, NewAddr: to})
			return err
		}},
		{"dontneed-fault", func(m *testMM, at hostarch.Addr, _ int) error {
			if err := m.Decommit(at, size); err != nil {
				return err
			}
			return m.HandleUserFault(m.ctx, at, hostarch.Write, 0)
		}},
	} {
		b.Run(call.name, func(b *testing.B) {
			m := newTestMM(b)
			real := m.MemoryManager.as
			m.MemoryManager.as = idleAS{real}
			defer func() { m.MemoryManager.as = real }()
			for i := range 200 {
				opts := anon
				opts.Addr, opts.Fixed, opts.Length = m.base+hostarch.Addr(i*2*pageSize), true, pageSize
				if _, err := m.MMap(m.ctx, opts); err != nil {
					b.Fatal(err)
				}
			}
			at := m.base + 1<<29
			opts := anon
			opts.Addr, opts.Fixed = at, true
			if _, err := m.MMap(m.ctx, opts); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if err := call.do(m, at, i); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}
