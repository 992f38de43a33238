// Command debugged is a program to be debugged.
package main

import "fmt"

//go:noinline
func add(n int) int {
	result := n + 1
	return result
}

func main() { fmt.Println("result", add(41)) }
