package mm

import (
	"math/rand"
	"os"
	"strconv"
	"testing"
)

// Claim: whatever sequence of operations is run, with whatever failures, a
// MemoryManager does what a plain model of address spaces does. See
// model_space_test.go.

// FuzzOperations lets the fuzzer look for sequences. Failing ones are printed as
// operations. Use -fuzzminimizetime=1x: making what is merely interesting shorter
// takes the fuzzer most of its time otherwise.
func FuzzOperations(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		const most = 2000 // or there is no telling what it was
		runModel(t, data[:min(len(data), most)])
	})
}

// TestRandomOperationsAgreeWithModel runs random sequences. MM_SEED repeats them,
// MM_RUNS sets how many.
func TestRandomOperationsAgreeWithModel(t *testing.T) {
	seed, runs := testSeed(t), 24
	if n, err := strconv.Atoi(os.Getenv("MM_RUNS")); err == nil {
		runs = n
	}
	for i := range runs {
		rng := rand.New(rand.NewSource(seed + int64(i)))
		data := make([]byte, 1000)
		rng.Read(data)
		data[0] = data[0]&^31 | byte(seed+int64(i))&31 // each kind of world
		t.Run(strconv.FormatInt(seed+int64(i), 10), func(t *testing.T) { runModel(t, data) })
	}
}
