package program

// Shrink returns the smallest program it finds that still fails, which p does. It leaves out steps,
// many at a time first, and then makes arguments simpler, as long as something of that works.
func Shrink(p *Program, fails func(*Program) bool) *Program {
	s := shrinker{best: p.Clone(), fails: fails}
	for {
		before := s.best.String()
		s.leaveOut()
		s.simplify()
		if s.best.String() == before {
			return s.best
		}
	}
}

type shrinker struct {
	best  *Program
	fails func(*Program) bool
}

// try takes a candidate for the best program if it fails.
func (s *shrinker) try(candidate *Program) bool {
	if !s.fails(candidate) {
		return false
	}
	s.best = candidate
	return true
}

// leaveOut tries to do without each run of steps, of half the program first and then of half of that.
func (s *shrinker) leaveOut() {
	for size := max(1, len(s.best.Steps)/2); size > 0; size /= 2 {
		// From the end: what comes late is needed by nothing.
		for end := len(s.best.Steps); end > 0; end -= size {
			start := max(0, end-size)
			candidate := s.best.Clone()
			candidate.Steps = append(candidate.Steps[:start], candidate.Steps[end:]...)
			s.try(candidate)
		}
	}
}

// simplify tries simpler actors and arguments, one after another.
func (s *shrinker) simplify() {
	if s.best.Probe != 1 {
		candidate := s.best.Clone()
		candidate.Probe = 1
		s.try(candidate)
	}
	for i := range s.best.Steps {
		if s.best.Steps[i].Actor != Main {
			candidate := s.best.Clone()
			candidate.Steps[i].Actor = Main
			s.try(candidate)
		}
		for arg, kind := range s.best.Steps[i].Op.Args {
			for _, value := range kind.simpler(s.best.Steps[i].Args[arg]) {
				candidate := s.best.Clone()
				candidate.Steps[i].Args[arg] = value
				if s.try(candidate) {
					break
				}
			}
		}
	}
	s.sameAddress()
}

// sameAddress tries to move a whole program to the beginning of the arena.
func (s *shrinker) sameAddress() {
	lowest := int64(-1)
	each := func(p *Program, do func(*int64)) {
		for _, step := range p.Steps {
			for i, kind := range step.Op.Args {
				if kind == KindAddr && Address(step.Args[i]).Region() == Arena {
					do(&step.Args[i])
				}
			}
		}
	}
	each(s.best, func(v *int64) {
		if page := Address(*v).Distance() / PageSize; lowest < 0 || page < lowest {
			lowest = page
		}
	})
	if lowest <= 0 {
		return
	}
	candidate := s.best.Clone()
	each(candidate, func(v *int64) { *v -= lowest * PageSize })
	s.try(candidate)
}

// simpler are values to try in place of one, the simplest first. None is simpler than itself, by however
// many steps, or shrinking would not end.
func (k *Kind) simpler(v int64) []int64 {
	var values []int64
	add := func(candidates ...int64) {
		for _, c := range candidates {
			if c != v {
				values = append(values, c)
			}
		}
	}
	switch {
	case k == KindAddr:
		a := Address(v)
		if rest := a.Distance() % PageSize; rest != 0 {
			add(v - rest)
		}
		if a.Region() == Heap || a.IsSlot() {
			add(int64(At(a.Region(), 0)))
		}
	case k == KindLen:
		if v < 0 || v > PageSize {
			add(PageSize)
		}
		if v > 2*PageSize {
			add(2*PageSize, 3*PageSize, v/2/PageSize*PageSize, v-PageSize)
		}
		if v%PageSize != 0 {
			add(v / PageSize * PageSize)
		}
	case k == KindOffset:
		add(0)
		if v > 0 {
			add(v-PageSize, v/PageSize*PageSize)
		}
	case k == KindNum:
		if v != 0 && v != 1 {
			add(1)
		}
	case k.flags:
		for _, n := range k.names {
			if v&n.value == n.value {
				add(v &^ n.value)
			}
		}
		if k == KindProt && v > 3 {
			add(3)
		}
	case k == KindHandle:
		add(int64(Disk), int64(Tmpfs), int64(Memfd))
		values = simplest(values, v)
	}
	return values
}

// simplest keeps, of files, only those that come before the one there is.
func simplest(values []int64, v int64) []int64 {
	var before []int64
	for _, value := range values {
		if value < v {
			before = append(before, value)
		}
	}
	return before
}
