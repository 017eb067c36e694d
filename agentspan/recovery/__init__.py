"""From journals into the storage: committing records once, adopting what dead programs left, and who is dead."""
