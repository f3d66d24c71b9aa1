import Glibc

/// What the system lets this process use.
enum ProcessorLimits {
  static let available: Int = {
    let allowed = affinityCount() ?? max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    guard let quota = controlGroupQuota() else { return allowed }
    return max(1, min(allowed, Int(quota.rounded(.up))))
  }()

  /// The processors in the affinity mask. The kernel's own text of it, since Swift cannot import `sched_getaffinity` (a GNU extension).
  private static func affinityCount() -> Int? {
    let key = "Cpus_allowed:"
    guard let line = readSmallFile("/proc/self/status")?.split(separator: "\n").first(where: { $0.hasPrefix(key) })
    else { return nil }
    let count = line.dropFirst(key.count).compactMap(\.hexDigitValue).reduce(0) { $0 + $1.nonzeroBitCount }
    return count > 0 ? count : nil
  }

  /// Processors that the control group's quota amounts to: the least along the path to the root, version 2 or 1.
  private static func controlGroupQuota() -> Double? {
    guard let groups = readSmallFile("/proc/self/cgroup") else { return nil }
    var least: Double?
    func note(_ quota: Double?) {
      if let quota, quota > 0 { least = min(least ?? quota, quota) }
    }
    for line in groups.split(separator: "\n") {
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3 else { continue }
      var path = fields[2] == "/" ? "" : String(fields[2])
      while true {
        if fields[1].isEmpty {
          note(quotaVersion2("/sys/fs/cgroup" + path))
        } else if fields[1].split(separator: ",").contains("cpu") {
          note(quotaVersion1("/sys/fs/cgroup/cpu" + path))
        }
        guard let slash = path.lastIndex(of: "/") else { break }
        path = String(path[..<slash])
      }
    }
    return least
  }

  private static func quotaVersion2(_ folder: String) -> Double? {
    guard let words = readSmallFile(folder + "/cpu.max")?.split(whereSeparator: \.isWhitespace), words.count == 2,
      let quota = Double(words[0]), let period = Double(words[1]), period > 0
    else { return nil }
    return quota / period
  }

  private static func quotaVersion1(_ folder: String) -> Double? {
    guard let quota = readSmallFile(folder + "/cpu.cfs_quota_us").flatMap({ Double($0.trimmedLine) }),
      let period = readSmallFile(folder + "/cpu.cfs_period_us").flatMap({ Double($0.trimmedLine) }), period > 0
    else { return nil }
    return quota / period
  }
}

/// The text of a file of the system's own (`/proc`, `/sys`), or nil.
package func readSmallFile(_ path: String) -> String? {
  let descriptor = open(path, O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else { return nil }
  defer { close(descriptor) }
  var bytes: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 4096)
  while true {
    let count = read(descriptor, &chunk, chunk.count)
    if count <= 0 { break }
    bytes += chunk[..<count]
    if bytes.count > 1 << 20 { break }
  }
  return String(decoding: bytes, as: UTF8.self)
}

extension String {
  package var trimmedLine: Substring {
    var text = self[...]
    while text.last?.isWhitespace == true { text.removeLast() }
    return text
  }
}
