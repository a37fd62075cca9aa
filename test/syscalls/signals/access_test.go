// Signal, code and address of every kind of bad access.
package signals

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// An access is one way to use memory.
type access struct {
	name string
	do   func(actor *kit.Actor, addr uintptr) kit.Access
}

var (
	load  = access{"load", func(actor *kit.Actor, addr uintptr) kit.Access { return actor.Load(addr) }}
	store = access{"store", func(actor *kit.Actor, addr uintptr) kit.Access { return actor.Store(addr, 0) }}
	exec  = access{"exec", func(actor *kit.Actor, addr uintptr) kit.Access { return actor.Exec(addr) }}
)

func TestBadAccess(t *testing.T) {
	for _, c := range []struct {
		name   string
		page   int
		access access
		want   string
	}{
		{"load-hole", hole, load, "SIGSEGV/MAPERR"},
		{"store-hole", hole, store, "SIGSEGV/MAPERR"},
		{"exec-hole", hole, exec, "SIGSEGV/MAPERR"},
		{"load-none", none, load, "SIGSEGV/ACCERR"},
		{"store-none", none, store, "SIGSEGV/ACCERR"},
		{"exec-none", none, exec, "SIGSEGV/ACCERR"},
		{"store-read-only", readOnly, store, "SIGSEGV/ACCERR"},
		{"exec-read-only", readOnly, exec, "SIGSEGV/ACCERR"},
		{"exec-writable", writable, exec, "SIGSEGV/ACCERR"},
		{"store-code", code, store, "SIGSEGV/ACCERR"},
		{"exec-file", fileStart, exec, "SIGSEGV/ACCERR"},
		{"load-beyond-eof", fileEnd, load, "SIGBUS/ADRERR"},
		{"store-beyond-eof", fileEnd, store, "SIGBUS/ADRERR"},
		{"load-cut-off", cutEnd, load, "SIGBUS/ADRERR"},
		{"store-cut-off", cutEnd, store, "SIGBUS/ADRERR"},
		{"load-last", lone, load, "SIGSEGV/MAPERR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			actors(t, func(t *testing.T, make func() *kit.Actor) {
				a, _ := stage(t)
				actor := make()
				for _, offset := range []uintptr{0, 5, kit.Len(1) - 1} {
					got := c.access.do(actor, a.Page(c.page)+offset)
					assert.Equal(t, c.want, got.SignalName())
					assert.Equal(t, a.Where(a.Page(c.page)+offset), a.Where(got.Addr), "address")
				}
			})
		})
	}
}

// What is allowed raises nothing.
func TestGoodAccess(t *testing.T) {
	a, _ := stage(t)
	for _, c := range []struct {
		name   string
		page   int
		access access
	}{
		{"load-read-only", readOnly, load},
		{"load-writable", writable, load},
		{"store-writable", writable, store},
		{"load-code", code, load},
		{"exec-code", code, exec},
		{"load-file", fileStart, load},
		{"store-file", fileStart, store},
		{"load-what-was-kept", cutStart, load},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.False(t, c.access.do(kit.Me, a.Page(c.page)).Faulted())
		})
	}
}

// The last bytes of a file's last page are there, and zero.
func TestRestOfTheLastPageIsZero(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 3)
		fd := d.File(t, 2)
		require.NoError(t, unix.Ftruncate(fd, int64(kit.Len(1))+7))
		a.Map(t, 0, 3, unix.PROT_READ, unix.MAP_SHARED, fd, 0)
		assert.EqualValues(t, kit.PageByte(1), kit.Me.Load(a.Page(1)+6).Value)
		assert.Equal(t, kit.Access{}, kit.Me.Load(a.Page(1)+7))
		assert.Equal(t, kit.Access{}, kit.Me.Load(a.Page(2)-1))
		assert.Equal(t, unix.SIGBUS, kit.Me.Load(a.Page(2)).Signal)
	})
}

// Addresses that belong to nobody, or to the kernel.
func TestAddressesOutside(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the layout of addresses is x86's")
	}
	for _, c := range []struct {
		name string
		addr uintptr
	}{
		{"null", 0},
		{"null-page", 8},
		{"top-page", 0x7fff_ffff_f000 - kit.Len(1)},
		{"top", 0x7fff_ffff_f000},
		{"kernel", 0xffff_8000_0000_0000},
		{"last-page", ^uintptr(0) - kit.Len(1) + 1},
		{"non-canonical", 1 << 62},
		{"first-non-canonical", 1 << 47},
	} {
		for _, kind := range []access{load, store, exec} {
			if c.name == "top-page" && kind.name == "exec" {
				continue // whoever runs this may have code of its own there, and a jump into it may not return
			}
			t.Run(c.name+"-"+kind.name, func(t *testing.T) {
				got := kind.do(kit.Me, c.addr)
				require.True(t, got.Faulted())
				kit.Say(t, "%s", got)
			})
		}
	}
}

// Memory that may only be executed can be read or not, as the machine has it; never written.
func TestExecuteOnly(t *testing.T) {
	a, _ := stage(t)
	require.Zero(t, kit.Me.Mprotect(a.Page(code), kit.Len(1), unix.PROT_EXEC))
	assert.False(t, kit.Me.Exec(a.Page(code)).Faulted())
	assert.Equal(t, unix.SIGSEGV, kit.Me.Store(a.Page(code), 1).Signal)
}

// An access of eight bytes over a page border names the first byte that it cannot have, and a store
// that fails has written nothing.
func TestAccessOverAPageBorder(t *testing.T) {
	const before = 0x5152535455565758
	for _, c := range []struct {
		name  string
		prot  int // of the second page; -1 for unmapped
		load  string
		store string
	}{
		{"hole", -1, "SIGSEGV/MAPERR at p2", "SIGSEGV/MAPERR at p2"},
		{"none", unix.PROT_NONE, "SIGSEGV/ACCERR at p2", "SIGSEGV/ACCERR at p2"},
		{"read-only", unix.PROT_READ, "0x0", "SIGSEGV/ACCERR at p2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 1, 1, kit.RW, 0)
			require.False(t, kit.Me.Store64(a.Page(2)-8, before).Faulted())
			if c.prot >= 0 {
				a.Anon(t, 2, 1, c.prot, 0)
			}
			got := kit.Me.Load64(a.Page(2) - 4)
			if got.Faulted() {
				assert.Equal(t, c.load, a.Describe(got))
			} else {
				assert.EqualValues(t, before>>32, got.Value)
			}
			assert.Equal(t, c.store, a.Describe(kit.Me.Store64(a.Page(2)-4, 0)))
			assert.EqualValues(t, before, kit.Me.Load64(a.Page(2)-8).Value)
		})
	}
}

func TestAccessOverTheEndOfAFile(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 4)
		a.Map(t, 1, 2, kit.RW, unix.MAP_SHARED, d.File(t, 1), 0)
		got := kit.Me.Load64(a.Page(2) - 4)
		assert.Equal(t, unix.SIGBUS, got.Signal)
		assert.Equal(t, "p2", a.Where(got.Addr))
		assert.Equal(t, unix.SIGBUS, kit.Me.Store64(a.Page(2)-4, 0).Signal)
		assert.EqualValues(t, kit.PageByte(0), kit.Me.Load(a.Page(2)-1).Value, "nothing was written")
	})
}

// The first page is bad: its own address is named.
func TestAccessThatBeginsBadly(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 2, 1, kit.RW, 0)
	assert.Equal(t, "SIGSEGV/MAPERR at p1+0xffd", a.Describe(kit.Me.Load64(a.Page(2)-3)))
	assert.Equal(t, "SIGSEGV/MAPERR at p1+0xffd", a.Describe(kit.Me.Store64(a.Page(2)-3, 1)))
}
