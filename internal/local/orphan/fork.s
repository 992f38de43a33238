// Without a file of assembly the compiler wants bodies for the functions that
// fork.go takes from the runtime.
