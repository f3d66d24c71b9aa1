import Glibc

/// The sizes of the caches of the first processor, in bytes; what the system does not tell is assumed.
package enum CacheSizes {
  /// The first level's data cache.
  package static let level1 = size(level: 1) ?? 32 << 10
  /// The second level, which one core has for itself.
  package static let level2 = size(level: 2) ?? 512 << 10
  /// The last level; the second where there is no third.
  package static let last = size(level: 3) ?? max(level2, 8 << 20)

  private static func size(level: Int) -> Int? {
    for index in 0..<8 {
      let folder = "/sys/devices/system/cpu/cpu0/cache/index\(index)"
      guard let found = readSmallFile(folder + "/level"), Int(found.trimmedLine) == level,
        let type = readSmallFile(folder + "/type"), type.trimmedLine != "Instruction",
        let text = readSmallFile(folder + "/size")?.trimmedLine, let unit = text.last
      else { continue }
      let factor = unit == "K" ? 1 << 10 : unit == "M" ? 1 << 20 : 1
      if let number = Int(factor == 1 ? text : text.dropLast()) { return number * factor }
    }
    return nil
  }
}
