// Claims what anonymous memory is: zeros, one's own or shared with children, accessible as its protection says.
package mmap

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestAnonymousMemoryIsZero(t *testing.T) {
	for name, flags := range map[string]int{
		"private": anon, "shared": shared, "populated": anon | unix.MAP_POPULATE, "locked": anon | unix.MAP_LOCKED,
		"grows down": anon | unix.MAP_GROWSDOWN, "noreserve": anon | unix.MAP_NORESERVE,
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 3)
			// What was there before must not shine through.
			a.Anon(t, 0, 3, rw, 0)
			a.Fill(t, 0, 3, 0xa0)
			a.Map(t, 0, 3, rw, flags, -1, 0)
			kit.Say(t, "%v", a.Bytes(kit.Me, 0, 3))
			for i, b := range a.Memory(0, 3) {
				require.Zero(t, b, "byte %d", i)
			}
		})
	}
}

// A page freed by one process and given to another is zero.
func TestReusedMemoryIsZero(t *testing.T) {
	a := kit.NewArena(t, 64)
	for round := range 3 {
		a.Anon(t, 0, 64, rw, 0)
		memory := a.Memory(0, 64)
		for i := range memory {
			if memory[i] != 0 {
				t.Fatalf("round %d: byte %d of new memory is %#x", round, i, memory[i])
			}
			memory[i] = 0xee
		}
		require.Zero(t, kit.Me.Munmap(a.Base, kit.Len(64)))
	}
}

func TestPrivateMemoryIsCopiedToChildren(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, rw, 0)
	a.Fill(t, 0, 2, 1)
	child := kit.Fork(t)
	a.Fill(t, 0, 1, 8)
	child.Store(a.Page(1), 9)
	kit.Say(t, "parent %v child %v", a.Bytes(kit.Me, 0, 2), a.Bytes(child, 0, 2))
	assert.Equal(t, []string{"08", "02"}, a.Bytes(kit.Me, 0, 2))
	assert.Equal(t, []string{"01", "09"}, a.Bytes(child, 0, 2))
}

func TestSharedMemoryIsSharedWithChildren(t *testing.T) {
	a := kit.NewArena(t, 3)
	a.Map(t, 0, 3, rw, shared, -1, 0)
	a.Fill(t, 0, 1, 1)
	child := kit.Fork(t)
	a.Fill(t, 1, 1, 8) // the first touch of the page is after the fork
	child.Store(a.Page(2), 9)
	kit.Say(t, "parent %v child %v", a.Bytes(kit.Me, 0, 3), a.Bytes(child, 0, 3))
	assert.Equal(t, []string{"01", "08", "09"}, a.Bytes(kit.Me, 0, 3))
	assert.Equal(t, []string{"01", "08", "09"}, a.Bytes(child, 0, 3))
}

// The memory lives as long as somebody maps it.
func TestSharedMemoryOutlivesTheFirstMapping(t *testing.T) {
	a := kit.NewArena(t, 1)
	a.Map(t, 0, 1, rw, shared, -1, 0)
	a.Fill(t, 0, 1, 5)
	child := kit.Fork(t)
	require.Zero(t, kit.Me.Munmap(a.Base, kit.Len(1)))
	assert.Equal(t, []string{"05"}, a.Bytes(child, 0, 1))
	assert.Equal(t, []string{"SIGSEGV/MAPERR"}, a.Bytes(kit.Me, 0, 1))
}

// Each call makes memory of its own, at whichever offset.
func TestSharedMappingsAreNotEachOther(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Map(t, 0, 1, rw, shared, -1, 0)
	a.Map(t, 1, 1, rw, shared, -1, 0)
	a.Fill(t, 0, 1, 1)
	assert.Equal(t, []string{"01", "00"}, a.Bytes(kit.Me, 0, 2))
}

// The name that a shared anonymous mapping has is that of a file that cannot be opened any more.
func TestSharedMemoryIsNamedDevZero(t *testing.T) {
	a := kit.NewArena(t, 1)
	a.Map(t, 0, 1, rw, shared, -1, 0)
	kit.Say(t, "%v", a.Layout(t, kit.Me))
	lines := a.Maps(t, kit.Me)
	require.Len(t, lines, 1)
	assert.Equal(t, "rw-s", lines[0].Perms)
	assert.Equal(t, "/dev/zero (deleted)", lines[0].Name)
	assert.NotZero(t, lines[0].Inode)
}

// access is what a load, a store and a call at a page do.
func access(a *kit.Arena, page int) []string {
	show := func(x kit.Access) string {
		if x.Faulted() {
			return a.Describe(x)
		}
		return "ok"
	}
	// The call first: the store destroys the code.
	exec := show(kit.Me.Exec(a.Page(page)))
	return []string{"load " + show(kit.Me.Load(a.Page(page))), "store " + show(kit.Me.Store(a.Page(page), 1)), "exec " + exec}
}

// What the hardware cannot keep apart is not claimed: whether memory for execution only can be read.
func TestProtectionDecidesAccess(t *testing.T) {
	denied := "SIGSEGV/ACCERR at p0"
	kinds := map[string]func(t *testing.T) (fd, flags int){
		"private file":  func(t *testing.T) (int, int) { return codeFile(t, kit.Dirs()[0]), unix.MAP_PRIVATE },
		"shared file":   func(t *testing.T) (int, int) { return codeFile(t, kit.Dirs()[0]), unix.MAP_SHARED },
		"private tmpfs": func(t *testing.T) (int, int) { return codeFile(t, kit.Dirs()[1]), unix.MAP_PRIVATE },
		"shared tmpfs":  func(t *testing.T) (int, int) { return codeFile(t, kit.Dirs()[1]), unix.MAP_SHARED },
	}
	for name, kind := range kinds {
		for _, c := range []struct {
			name              string
			prot              int
			perms             string
			load, store, exec string
		}{
			{"none", none, "---", denied, denied, denied},
			{"read", ro, "r--", "ok", denied, denied},
			{"write", unix.PROT_WRITE, "-w-", "ok", "ok", denied},
			{"read and write", rw, "rw-", "ok", "ok", denied},
			{"read and exec", rx, "r-x", "ok", denied, "ok"},
			{"all", rw | rx, "rwx", "ok", "ok", "ok"},
		} {
			t.Run(name+" "+c.name, func(t *testing.T) {
				a := kit.NewArena(t, 1)
				fd, flags := kind(t)
				a.Map(t, 0, 1, c.prot, flags, fd, 0)
				perms := a.Maps(t, kit.Me)[0].Perms
				kit.Say(t, "%s", perms)
				assert.Equal(t, c.perms, perms[:3])
				got := access(a, 0)
				kit.Say(t, "%v", got)
				assert.Equal(t, []string{"load " + c.load, "store " + c.store, "exec " + c.exec}, got)
			})
		}
	}
}

func TestProtectionOfAnonymousMemory(t *testing.T) {
	denied := "SIGSEGV/ACCERR at p0"
	for kind, flags := range map[string]int{"private": anon, "shared": shared, "populated": anon | unix.MAP_POPULATE} {
		for _, c := range []struct {
			name        string
			prot        int
			perms       string
			load, store string
		}{
			{"none", none, "---", denied, denied},
			{"read", ro, "r--", "0x0", denied},
			{"write", unix.PROT_WRITE, "-w-", "0x0", "0x0"},
			{"read and write", rw, "rw-", "0x0", "0x0"},
			{"read and exec", rx, "r-x", "0x0", denied},
		} {
			t.Run(kind+" "+c.name, func(t *testing.T) {
				a := kit.NewArena(t, 1)
				a.Map(t, 0, 1, c.prot, flags, -1, 0)
				perms := a.Maps(t, kit.Me)[0].Perms
				load, store := kit.Me.Load(a.Base), kit.Me.Store(a.Base, 1)
				kit.Say(t, "%s %s", perms, a.Describe(load))
				assert.Equal(t, c.perms, perms[:3])
				assert.Equal(t, c.load, a.Describe(load))
				assert.Equal(t, c.store != denied, !store.Faulted())
				if store.Faulted() {
					assert.Equal(t, c.store, a.Describe(store))
				}
			})
		}
	}
}

// The first access may come from the kernel, and may cross from page to page.
func TestFirstTouchInASystemCall(t *testing.T) {
	a := kit.NewArena(t, 3)
	a.Anon(t, 0, 3, rw, 0)
	r, w := kit.Pipe(t)
	_, err := unix.Write(w, make([]byte, kit.PageSize))
	require.NoError(t, err)
	got := kit.Me.Read(r, a.Page(1)-8, kit.Len(1))
	assert.Equal(t, kit.Result{Value: kit.Len(1)}, got)
	assert.False(t, kit.Me.Store64(a.Page(2)-4, 0x1122334455667788).Faulted())
	assert.Equal(t, uint64(0x11223344), kit.Me.Load64(a.Page(2)).Value)
}
