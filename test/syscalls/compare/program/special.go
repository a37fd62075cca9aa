package program

import "golang.org/x/sys/unix"

// specials choose arguments of some operations again, where what a single argument could be says too
// little.
var specials map[*Op]func(*generator, *Step)

func init() {
	specials = map[*Op]func(*generator, *Step){
		Mmap: (*generator).mmap, Mremap: (*generator).mremap, Munmap: (*generator).munmap, Mprotect: (*generator).mprotect,
		Brk: (*generator).brk, Madvise: (*generator).madvise, Shmget: (*generator).shmget, Shmat: (*generator).shmat,
		Fork: (*generator).fork, Exit: (*generator).exit, Park: (*generator).park, FutexWait: (*generator).futex, FutexWake: (*generator).futex,
		Requeue: (*generator).requeue, AIOSetup: (*generator).aioSetup, AIOSubmit: (*generator).aioSubmit, Limit: (*generator).limit,
		Read: (*generator).pipe, Write: (*generator).pipe, Readv: (*generator).pipe, Writev: (*generator).pipe,
		Ftruncate: (*generator).file, Fallocate: (*generator).file, Seal: (*generator).seal, Pread: (*generator).file, Pwrite: (*generator).file,
		Mlockall: (*generator).lockAll, VMRead: (*generator).short, VMWrite: (*generator).short,
	}
}

// improbable are lengths that no call accepts.
func (g *generator) improbable() int64 {
	return []int64{-1, -PageSize, 1 << 62, -1 << 63, 1 << 47}[g.IntN(5)]
}

func (g *generator) mmap(s *Step) {
	flags := int64(unix.MAP_PRIVATE | unix.MAP_ANONYMOUS)
	s.Args[4], s.Args[5] = int64(NoFile), 0
	switch n := g.IntN(100); {
	case n < 12:
		flags = unix.MAP_SHARED | unix.MAP_ANONYMOUS
	case n < 52:
		flags = int64(g.pick(unix.MAP_SHARED, unix.MAP_SHARED, unix.MAP_PRIVATE, unix.MAP_PRIVATE, unix.MAP_SHARED_VALIDATE))
		s.Args[4] = int64(g.pick(int(Disk), int(Disk), int(DiskRead), int(Tmpfs), int(Tmpfs), int(Memfd), int(Memfd), int(Sealed), int(Zero), int(PipeRead)))
		s.Args[5] = g.offset()
		if s.Args[5]%PageSize != 0 && g.chance(80) {
			s.Args[5] = 0
		}
	case n < 53:
		flags = int64(g.pick(0, unix.MAP_ANONYMOUS, unix.MAP_SHARED))
	}
	switch n := g.IntN(100); {
	case n < 65:
		flags |= unix.MAP_FIXED
	case n < 75:
		flags |= unix.MAP_FIXED_NOREPLACE
	case n < 87: // a hint
	case n < 95:
		s.Args[0] = int64(At(Absolute, 0))
	default:
		s.Args[0] = int64(At(Absolute, 0))
		flags |= map32Bit
	}
	if g.chance(25) {
		flags |= int64(g.pick(unix.MAP_POPULATE, unix.MAP_POPULATE, unix.MAP_POPULATE, unix.MAP_LOCKED, unix.MAP_NORESERVE, unix.MAP_GROWSDOWN,
			unix.MAP_STACK, unix.MAP_POPULATE|unix.MAP_NONBLOCK, unix.MAP_LOCKED|unix.MAP_POPULATE))
	}
	if g.chance(1) {
		s.Args[1] = g.improbable()
	}
	s.Args[3] = flags
	s.Args[6] = int64(g.slots % Slots)
	if flags&(unix.MAP_FIXED|unix.MAP_FIXED_NOREPLACE) == 0 {
		g.slots++
	}
}

func (g *generator) mremap(s *Step) {
	flags := g.pick(0, 0, 0, unix.MREMAP_MAYMOVE, unix.MREMAP_MAYMOVE, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED,
		unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, unix.MREMAP_MAYMOVE|unix.MREMAP_DONTUNMAP)
	if g.chance(1) {
		flags = unix.MREMAP_FIXED
	}
	if Address(s.Args[0]).IsSlot() {
		// Whether there is room behind it is chance.
		flags |= unix.MREMAP_MAYMOVE
	}
	if g.chance(40) {
		s.Args[2] = s.Args[1]
	}
	if g.chance(3) {
		s.Args[1] = 0
	}
	if g.chance(1) {
		s.Args[2] = g.improbable()
	}
	if g.chance(1) {
		s.Args[1] = g.improbable()
	}
	if flags&unix.MREMAP_FIXED == 0 {
		s.Args[4] = 0
	} else if Address(s.Args[4]).IsSlot() {
		s.Args[4] = int64(Page(g.clusters[0]))
	}
	s.Args[3] = int64(flags)
	s.Args[5] = int64(g.slots % Slots)
	if flags&unix.MREMAP_MAYMOVE != 0 && flags&unix.MREMAP_FIXED == 0 {
		g.slots++
	}
}

func (g *generator) munmap(s *Step) {
	if g.chance(1) {
		s.Args[1] = g.improbable()
	}
}

func (g *generator) mprotect(s *Step) {
	if g.chance(2) {
		s.Args[2] |= unix.PROT_GROWSDOWN
	}
	if g.chance(1) {
		s.Args[1] = g.improbable()
	}
}

func (g *generator) brk(s *Step) {
	s.Args[0] = int64(At(Heap, int64(g.IntN(HeapPages))*PageSize+int64(g.pick(0, 0, 0, 1, -1, 100))))
}

func (g *generator) madvise(s *Step) {
	if g.chance(45) {
		s.Args[2] = int64(g.pick(unix.MADV_DONTNEED, unix.MADV_DONTNEED, unix.MADV_DONTFORK, unix.MADV_DOFORK))
	}
}

func (g *generator) lockAll(s *Step) {
	s.Args[0] = int64(g.pick(unix.MCL_CURRENT, unix.MCL_FUTURE, unix.MCL_CURRENT|unix.MCL_FUTURE, unix.MCL_FUTURE|unix.MCL_ONFAULT,
		unix.MCL_CURRENT|unix.MCL_ONFAULT, unix.MCL_ONFAULT, 0, 8))
}

func (g *generator) shmget(s *Step) {
	s.Args[0] = int64(g.segments % Segments)
	s.Args[1] = int64(g.pick(0, 1, 1, 2, 3, 4, 4, 5, HugeSize/PageSize)) * PageSize
	if g.chance(10) {
		s.Args[1]++
	}
	g.segments = min(g.segments+1, Segments)
}

func (g *generator) shmat(s *Step) {
	if s.Args[3] = int64(g.slots % Slots); g.chance(15) {
		s.Args[1] = 0
		g.slots++
	}
	if g.chance(50) {
		s.Args[2] |= shmRemap
	}
}

func (g *generator) fork(s *Step) {
	if s.Actor.IsThread() {
		s.Actor = Main
	}
	child := Child1 + Actor(g.children)%(Actors-Child1)
	s.Args[0] = int64(child)
	g.children++
	g.alive = append(g.alive, child)
}

func (g *generator) exit(s *Step) {
	if !s.Actor.IsChild() {
		s.Actor = Child1 + Actor(g.IntN(int(Actors-Child1)))
	}
	var left []Actor
	for _, a := range g.alive {
		if a != s.Actor {
			left = append(left, a)
		}
	}
	g.alive = left
}

func (g *generator) park(s *Step) {
	// Main never sleeps: it is who wakes the others.
	s.Actor = Actor(g.pick(int(Thread1), int(Thread2)))
	g.futex(s)
}

// futex keeps values small enough to be met, and flags to private or not.
func (g *generator) futex(s *Step) {
	s.Args[1] = int64(g.pick(0, 0, 1, 2))
	s.Args[2] = int64(g.pick(0, 0, futexPrivate))
}

func (g *generator) requeue(s *Step) {
	s.Args[1], s.Args[2] = int64(g.IntN(2)), int64(g.IntN(3))
	s.Args[4] = int64(g.pick(0, 0, futexPrivate))
}

const futexPrivate = 128

func (g *generator) aioSetup(s *Step) {
	s.Args[0] = int64(g.contexts % Contexts)
	s.Args[1] = int64(g.slots % Slots)
	g.slots++
	g.contexts = min(g.contexts+1, Contexts)
}

func (g *generator) aioSubmit(s *Step) {
	s.Args[1] = int64(g.IntN(2))
	g.fileOf(s, 2)
	g.shorten(s)
}

func (g *generator) limit(s *Step) {
	s.Args[1] = int64(g.pick(0, 1, 2, 4, 8, 16, 64, 1024)) * PageSize
	if s.Args[0] == unix.RLIMIT_MEMLOCK && s.Args[1] > 64*PageSize {
		s.Args[1] = HugeSize * 128 // more than all there is: what a process begins with differs
	}
	if g.chance(30) {
		s.Args[1] = -1
	}
}

func (g *generator) pipe(s *Step) {
	s.Args[0] = int64(PipeRead)
	if s.Op == Write || s.Op == Writev {
		s.Args[0] = int64(PipeWrite)
	}
	g.shorten(s)
}

func (g *generator) file(s *Step) {
	g.fileOf(s, 0)
	g.shorten(s)
}

func (g *generator) fileOf(s *Step, arg int) {
	s.Args[arg] = int64(g.pick(int(Disk), int(Disk), int(DiskRead), int(Tmpfs), int(Tmpfs), int(Memfd), int(Memfd), int(Sealed), int(Zero)))
}

func (g *generator) seal(s *Step) {
	s.Args[0] = int64(g.pick(int(Memfd), int(Memfd), int(Memfd), int(Sealed), int(Tmpfs)))
}

func (g *generator) short(s *Step) { g.shorten(s) }

// shorten keeps what is copied small enough for pipes and for the time there is.
func (g *generator) shorten(s *Step) {
	const most = 12 * PageSize
	for i, kind := range s.Op.Args {
		if kind == KindLen && s.Args[i] > most {
			s.Args[i] = int64(1+g.IntN(8)) * PageSize
		}
		if kind == KindLen && g.chance(30) {
			s.Args[i] = int64(1 + g.IntN(64))
		}
	}
}
