package known

import (
	"hash/fnv"
	"math/rand/v2"

	"sentrymm/test/syscalls/compare/program"
)

// Filter is what is wanted in the program of a seed: steps that lead to none of the differences, and of two
// sorts of steps that lead to one together only one. Another seed has the other.
func Filter(seed uint64) func(program.Step) bool {
	return func(s program.Step) bool {
		return Wanted(s) && eachSide(s, func(about string, side int) bool { return side == chosen(seed, about) })
	}
}

// Together reports whether the steps may be in one program: each is wanted, and no two lead to a difference.
func Together(steps []program.Step) bool {
	sides := map[string]int{}
	for _, s := range steps {
		if !Wanted(s) {
			return false
		}
		if !eachSide(s, func(about string, side int) bool {
			before := sides[about]
			sides[about] = side
			return before == 0 || before == side
		}) {
			return false
		}
	}
	return true
}

// eachSide calls f for each sort of steps that s is of, until it returns false, which eachSide then returns.
func eachSide(s program.Step, f func(about string, side int) bool) bool {
	for _, d := range All {
		if d.Side == nil {
			continue
		}
		about, side := d.Side(s)
		if side != 0 && !f(d.Name+" "+about, side) {
			return false
		}
	}
	return true
}

// chosen is the side that programs of a seed have.
func chosen(seed uint64, about string) int {
	h := fnv.New64a()
	h.Write([]byte(about))
	return 1 + rand.New(rand.NewPCG(seed, h.Sum64())).IntN(2)
}
