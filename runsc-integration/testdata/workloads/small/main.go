// Program small is built inside a container: a few packages, so that compilers run side by side.
package main

import (
	"fmt"

	"small/count"
	"small/words"
)

func main() {
	for _, w := range words.All() {
		fmt.Println(w, count.Vowels(w))
	}
}
