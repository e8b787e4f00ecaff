package seal

// Cheap is to with a passphrase that costs a test no second.
func Cheap(to To) To {
	to.cost = 10
	return to
}
