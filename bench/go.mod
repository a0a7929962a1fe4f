module spillway/bench

go 1.24
